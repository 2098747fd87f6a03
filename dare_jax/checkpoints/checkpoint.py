"""Checkpoints: the last ones to go on from, and the best, written by orbax.

A checkpoint holds the training state, without tables that are never trained,
and a JSON with the position, the
config, the code version and the data's fingerprint. The data position and all
random numbers follow from (seed, step), so nothing else is needed to go on.
Orbax writes to a temporary folder and renames it: a kill at any moment leaves
the checkpoints before it intact.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

from absl import logging
from etils import epath
import jax
import orbax.checkpoint as ocp

from dare_jax import errors
from dare_jax import storage
from dare_jax.checkpoints import checksum
from dare_jax.checkpoints import description as description_lib
from dare_jax.checkpoints import leaves
from dare_jax.parallel import barriers
from dare_jax.parallel import processes
from dare_jax.training import saved_form
from dare_jax.training import state as train_state
from dare_jax.training import state_parts

T = TypeVar('T')
TrainState = train_state.TrainState
# Limit of one save, however large; a failed process is noticed before that.
_SAVE_SECONDS = 6 * 3600


class DamagedError(errors.UsageError):
  """A checkpoint that is there but cannot be read."""


class _Manager(ocp.CheckpointManager):
  """Leaves JAX's preemption service to the loop, whose count differs."""

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class Checkpoints:
  """The checkpoints of one workdir, in its folders `last` and `best`."""

  def __init__(
    self, directory: epath.PathLike, keep_last: int = 2, read_only: bool = False
  ) -> None:
    """Opens the folders.

    Args:
      directory: the folder of the checkpoints.
      keep_last: number of checkpoints of `last` to keep.
      read_only: whether another process may be writing: nothing is removed
        then, not even half-written saves, one of which may be under way.
    """
    self._directory = storage.locate(directory)
    self._read_only = read_only
    self._failed = False
    self._last = self._manager('last', keep_last)
    # One more: a new best is there before the first `last` that names it, and
    # until then the oldest `last` names the oldest best.
    self._best = self._manager('best', keep_last + 1)
    # Not as the disk has it, which another process may see a moment later.
    self._saved = {
      manager: set(manager.all_steps()) for manager in (self._last, self._best)
    }

  def _manager(self, name: str, keep: int) -> ocp.CheckpointManager:
    if not self._read_only:
      make = lambda: storage.make_folder(self._directory / name)
      processes.in_turn(make)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=None if self._read_only else keep,
      save_interval_steps=0 if self._read_only else 1,
      cleanup_tmp_directories=not self._read_only,
      read_only=self._read_only,
      create=False,
      async_options=ocp.options.AsyncOptions(
        timeout_secs=_SAVE_SECONDS, barrier_sync_fn=barriers.Barriers(name)
      ),
      # Both may be at work at once; their barriers must not meet.
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        barrier_sync_key_prefix=name
      ),
    )
    return _Manager(self._directory / name, options=options)

  def save_last(
    self, step: int, state: TrainState, description: Mapping[str, Any]
  ) -> None:
    """Saves in the background.

    Raises:
      UsageError: this save, or the one before it, cannot be written.
    """
    self._save(self._last, step, state, description)

  def save_best(
    self, step: int, state: TrainState, description: Mapping[str, Any]
  ) -> None:
    """Saves and waits, so that no later `last` names a best that is missing.

    Raises:
      UsageError: it cannot be written.
    """
    self._save(self._best, step, state, description)
    self._settle(self._best)

  def _save(
    self,
    manager: ocp.CheckpointManager,
    step: int,
    state: TrainState,
    description: Mapping[str, Any],
  ) -> None:
    if step in self._saved[manager]:
      return  # The same step has the same state.
    self._settle(manager)
    self._try_out(manager)
    saved, values = leaves.saved(state_parts.with_given(state, {}))
    sealed = description_lib.seal(description, values)
    try:
      manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(saved),
          description=ocp.args.JsonSave(sealed),
        ),
      )
    except Exception as error:  # Orbax raises various ones on a full disk.
      raise self._failure(manager, _reason(error)) from error
    self._saved[manager].add(step)

  def has_last(self, step: int) -> bool:
    """Whether `save_last` has been called for that step."""
    return step in self._saved[self._last]

  def _settle(self, manager: ocp.CheckpointManager) -> None:
    """Waits for a save under way; if it failed, raises on all processes."""
    reason = ''
    try:
      manager.wait_until_finished()
    except Exception as error:  # As above.
      reason = _own_reason(error)
    self._tell(manager, reason)

  def _try_out(self, manager: ocp.CheckpointManager) -> None:
    """Raises on all processes if the first cannot make a folder.

    Orbax would make it there, and the others would wait for it in vain. A
    bucket has no folders but in the names of what lies there.
    """
    if processes.is_alone() or storage.is_remote(manager.directory):
      return
    reason = ''
    if processes.is_first():
      path = manager.directory / 'tried'
      try:
        path.mkdir(exist_ok=True)
        path.rmdir()
      except Exception as error:  # As above.
        reason = _own_reason(error)
    self._tell(manager, reason)

  def _tell(self, manager: ocp.CheckpointManager, reason: str) -> None:
    if reason := processes.first_text(reason):
      raise self._failure(manager, reason)

  def _failure(
    self, manager: ocp.CheckpointManager, reason: str
  ) -> errors.UsageError:
    self._failed = True
    return errors.UsageError(
      f'{manager.directory}: a checkpoint could not be written ({reason}); make'
      ' room, or mend the disk, and run the same command: it goes on from the'
      ' newest that is there.'
    )

  def steps(self) -> list[int]:
    """Returns the steps that have a complete checkpoint, ascending."""
    return sorted({*self._last.all_steps(), *self._best.all_steps()})

  @property
  def last_step(self) -> int | None:
    return max(self._last.all_steps(), default=None)

  @property
  def best_step(self) -> int | None:
    return max(self._best.all_steps(), default=None)

  def restore_last(
    self, template: TrainState, fingerprint: str
  ) -> tuple[TrainState, dict[str, Any]] | None:
    """Returns the newest readable checkpoint, or None if there is none.

    A damaged one is skipped with a warning that names it. What was saved
    after the restored one is removed, since the run will write it again.

    Raises:
      UsageError: there are checkpoints but none can be read; or they were
        trained on other data.
    """
    tried: list[int] = []
    while True:
      left = (s for s in self._last.all_steps() if not tried or s < tried[-1])
      # A process may see a newer checkpoint than others: all try one.
      step = processes.largest(max(left, default=-1))
      if step < 0:
        break
      try:
        restored = _restore(self._last, step, template, fingerprint)
      except DamagedError as error:
        tried.append(step)
        if processes.is_first():
          logging.warning('%s; it was skipped', error)
        continue
      self._drop_after(step)
      return restored
    if tried:
      raise errors.UsageError(
        f'{self._directory}: none of the checkpoints {tried} can be read;'
        ' restore one from a copy, or start anew in another workdir.'
      )
    self._drop_after(-1)
    return None

  def _drop_after(self, step: int) -> None:
    """Removes later checkpoints; orbax saves no step below its newest."""
    for manager in (self._last, self._best):
      for later in [s for s in manager.all_steps() if s > step]:
        manager.delete(later)
      self._saved[manager] = {s for s in self._saved[manager] if s <= step}

  def restore(
    self, step: int, template: TrainState, fingerprint: str
  ) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state and description of one checkpoint.

    Raises:
      UsageError: no such step, damaged files, or data with another fingerprint.
    """
    try:
      return _restore(self.manager_of(step), step, template, fingerprint)
    except DamagedError as error:
      raise errors.UsageError(
        f'{error}; put it back from a copy, or evaluate another one,'
        f' --checkpoint={"|".join(map(str, self.steps()))}.'
      ) from None

  def read(
    self, step: int, template: TrainState, fingerprint: str
  ) -> Iterator[tuple[tuple[Any, ...], jax.Array]]:
    """Yields path and array of each leaf of a checkpoint, tables apart.

    For a reader that needs a part of it, or another shape.

    Raises:
      DamagedError: as `restore`, but perhaps only after the last leaf.
      UsageError: as `restore`.
    """
    path = self.manager_of(step).directory / str(step)
    expected = _describe(path, fingerprint).pop(description_lib.VALUES)
    abstract = saved_form.shapes(state_parts.with_given(template, {}))
    found = leaves.read(path / 'state', abstract)
    own = 0
    for number, (name, _) in enumerate(jax.tree.leaves_with_path(abstract)):
      leaf = _read(path, lambda: next(found))
      own += checksum.part(number, leaf)
      yield name, leaf
      del leaf  # Else it is held while the next one is read.
    if checksum.total(own) != expected:
      raise _damaged(path, 'its checksum does not match')

  def manager_of(self, step: int) -> ocp.CheckpointManager:
    """Returns the manager that has a step; raises UsageError if none has."""
    if step not in self.steps():
      raise errors.UsageError(
        f'{self._directory}: no checkpoint of step {step}; there are'
        f' {", ".join(map(str, self.steps())) or "none"}.'
      )
    return self._last if step in self._last.all_steps() else self._best

  def wait(self) -> None:
    """Waits for the save under way; raises UsageError if it failed."""
    self._settle(self._last)

  def close(self) -> None:
    """Waits and closes; raises UsageError if a save failed."""
    if self._failed:
      return  # The error was reported; the save under way will not end.
    for manager in (self._last, self._best):
      try:
        manager.close()
      except Exception as error:  # As above.
        raise self._failure(manager, _reason(error)) from error


def _restore(
  manager: ocp.CheckpointManager,
  step: int,
  template: TrainState,
  fingerprint: str,
) -> tuple[TrainState, dict[str, Any]]:
  """Reads a checkpoint; all processes return, or all raise the same.

  Orbax's manager would wait for all processes after reading, which those never
  reach that met the damage. Its handlers do not wait.
  """
  path = manager.directory / str(step)
  description = _describe(path, fingerprint)
  expected = description.pop(description_lib.VALUES)
  template = state_parts.with_given(template, {})
  read = lambda: leaves.read_state(path / 'state', template)
  state, own = _read(path, read)
  if checksum.total(own) != expected:
    raise _damaged(path, 'its checksum does not match')
  return state, description


def _describe(path: epath.Path, fingerprint: str) -> dict[str, Any]:
  """Returns what is told of a checkpoint, which must be of that data."""
  description = _read(path, lambda: description_lib.read(path))
  trained_on = description['data_fingerprint']
  if trained_on != fingerprint:
    raise errors.UsageError(
      f'checkpoint {path} was trained on data with the fingerprint'
      f' {trained_on}, made from {description.get("data_made_from")}, but the'
      f' history store has {fingerprint}; use that data, or another workdir.'
    )
  return description


def _read(path: epath.Path, read: Callable[[], T]) -> T:
  """Returns what `read` does; raises DamagedError on all if any cannot."""
  result, reason = None, ''
  try:
    result = read()
  except Exception as error:  # Whatever a damaged file makes orbax raise.
    reason = _reason(error)
  if reason := processes.first_text(reason):
    raise _damaged(path, reason)
  return result  # type: ignore[return-value]


def _own_reason(error: Exception) -> str:
  """Returns why this process failed, '' if only another one did."""
  if isinstance(_first_of(error), barriers.PeerError):
    return ''
  number = f'process {jax.process_index()}: '
  return ('' if processes.is_alone() else number) + _reason(error)


def _first_of(error: BaseException) -> BaseException:
  """Returns the first of a chain of errors.

  What stopped the run, and so led to a save, is none of them.
  """
  while isinstance(earlier := error.__cause__ or error.__context__, Exception):
    error = earlier
  return error


def _reason(error: BaseException) -> str:
  """Returns one line of the first of a chain of errors."""
  error = _first_of(error)
  line = (str(error).splitlines() or [''])[0] or type(error).__name__
  line = line.split(' [tensorstore_spec')[0]
  return line if len(line) <= 200 else f'...{line[-200:]}'  # The cause is last.


def _damaged(path: epath.Path, reason: str) -> DamagedError:
  return DamagedError(f'checkpoint {path} is damaged: {reason}')
