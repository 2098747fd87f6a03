"""Checkpoints: the last ones to go on from, and the best, written by orbax.

A checkpoint holds the whole training state and a JSON with the position, the
config, the code version and the data's fingerprint. The data position and all
random numbers follow from (seed, step), so nothing else is needed to go on.
Orbax writes to a temporary folder and renames it: a kill at any moment leaves
the checkpoints before it intact.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
import jax
import orbax.checkpoint as ocp

from dare_jax import errors
from dare_jax.training import state as train_state

TrainState = train_state.TrainState
# Two, so that one is left if the newest turns out damaged.
_KEEP_LAST = 2


class Checkpoints:
  """The checkpoints of one workdir, in its folders `last` and `best`."""

  def __init__(self, directory: pathlib.Path) -> None:
    self._directory = directory.absolute()
    self._last = self._manager('last', _KEEP_LAST)
    self._best = self._manager('best', 1)

  def _manager(self, name: str, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(self._directory / name, options=options)

  def save_last(
    self, step: int, state: TrainState, description: Mapping[str, Any]
  ) -> None:
    """Saves in the background; raises if the save before it failed."""
    _save(self._last, step, state, description)

  def save_best(
    self, step: int, state: TrainState, description: Mapping[str, Any]
  ) -> None:
    """Saves and waits, so that no later `last` names a best that is missing."""
    _save(self._best, step, state, description)
    self._best.wait_until_finished()

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

    A damaged one is skipped with a warning that names it, and removed, since
    the run will write it again.

    Raises:
      UsageError: there are checkpoints but none can be read; or they were
        trained on other data.
    """
    steps = sorted(self._last.all_steps(), reverse=True)
    damaged = []
    for step in steps:
      try:
        restored = self.restore(step, template, fingerprint)
      except errors.UsageError:
        raise
      except Exception as error:  # Whatever a damaged file makes orbax raise.
        reason = str(error).splitlines() or [type(error).__name__]
        logging.warning(
          'checkpoint %s is damaged and was skipped: %s',
          self._directory / 'last' / str(step),
          reason[0],
        )
        damaged.append(step)
        continue
      for bad in damaged:
        self._last.delete(bad)
      return restored
    if steps:
      raise errors.UsageError(
        f'{self._directory}: none of the checkpoints {steps} can be read;'
        ' restore one from a copy, or start anew in another workdir.'
      )
    return None

  def restore(
    self, step: int, template: TrainState, fingerprint: str
  ) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state and description of one checkpoint.

    Raises:
      UsageError: no such step, or data with another fingerprint.
    """
    if step not in self.steps():
      raise errors.UsageError(
        f'{self._directory}: no checkpoint of step {step}; there are'
        f' {", ".join(map(str, self.steps())) or "none"}.'
      )
    manager = self._last if step in self._last.all_steps() else self._best
    description = manager.restore(
      step, args=ocp.args.Composite(description=ocp.args.JsonRestore())
    )['description']
    if description['data_fingerprint'] != fingerprint:
      raise errors.UsageError(
        f'checkpoint {step} in {self._directory} was trained on data with'
        f' the fingerprint {description["data_fingerprint"]}, but the'
        f' history store has {fingerprint}; use the same data, or another'
        ' workdir.'
      )
    abstract = jax.tree.map(_abstract, template)
    restored = manager.restore(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
    )
    return restored['state'], description

  def wait(self) -> None:
    """Waits for the save under way; raises if it failed."""
    self._last.wait_until_finished()

  def close(self) -> None:
    """Waits and closes; raises if a save failed."""
    self._last.close()
    self._best.close()


def _save(
  manager: ocp.CheckpointManager,
  step: int,
  state: TrainState,
  description: Mapping[str, Any],
) -> None:
  if step in manager.all_steps():
    return  # The same step has the same state.
  manager.save(
    step,
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      description=ocp.args.JsonSave(dict(description)),
    ),
  )


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
