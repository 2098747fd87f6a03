"""Checkpoints: the last ones to go on from, and the best, written by orbax.

A checkpoint holds the whole training state and a JSON with the position, the
config, the code version and the data's fingerprint. The data position and all
random numbers follow from (seed, step), so nothing else is needed to go on.
Orbax writes to a temporary folder and renames it: a kill at any moment leaves
the checkpoints before it intact.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any
import zlib

from absl import logging
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from dare_jax import errors
from dare_jax.parallel import processes
from dare_jax.training import state as train_state

TrainState = train_state.TrainState
# Two: one is left if the newest turns out damaged, and the best that a `last`
# names is there until the next `last` names the next best.
_KEEP = 2
_CHECKSUM = 'crc32'


class DamagedError(errors.UsageError):
  """A checkpoint that is there but cannot be read."""


class Checkpoints:
  """The checkpoints of one workdir, in its folders `last` and `best`."""

  def __init__(self, directory: pathlib.Path) -> None:
    self._directory = directory.absolute()
    self._last = self._manager('last')
    self._best = self._manager('best')
    # Not as the disk has it, which another process may see a moment later.
    self._saved = {
      manager: set(manager.all_steps()) for manager in (self._last, self._best)
    }

  def _manager(self, name: str) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
      max_to_keep=_KEEP, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(self._directory / name, options=options)

  def save_last(
    self, step: int, state: TrainState, description: Mapping[str, Any]
  ) -> None:
    """Saves in the background; raises if the save before it failed."""
    self._save(self._last, step, state, description)

  def save_best(
    self, step: int, state: TrainState, description: Mapping[str, Any]
  ) -> None:
    """Saves and waits, so that no later `last` names a best that is missing."""
    self._save(self._best, step, state, description)
    self._best.wait_until_finished()

  def _save(
    self,
    manager: ocp.CheckpointManager,
    step: int,
    state: TrainState,
    description: Mapping[str, Any],
  ) -> None:
    if step in self._saved[manager]:
      return  # The same step has the same state.
    sealed = json.loads(json.dumps(description))
    sealed[_CHECKSUM] = _checksum(state, sealed)
    manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        description=ocp.args.JsonSave(sealed),
      ),
    )
    self._saved[manager].add(step)

  def has_last(self, step: int) -> bool:
    """Whether `save_last` has been called for that step."""
    return step in self._saved[self._last]

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
    steps = sorted(self._last.all_steps(), reverse=True)
    for step in steps:
      restored, damage = None, 'another process cannot read it'
      try:
        restored = _restore(self._last, step, template, fingerprint)
      except DamagedError as error:
        damage = str(error)
      # A process may have met the damage alone.
      if processes.any_of(restored is None) or restored is None:
        logging.warning('%s; it was skipped', damage)
        continue
      self._drop_after(step)
      return restored
    if steps:
      raise errors.UsageError(
        f'{self._directory}: none of the checkpoints {steps} can be read;'
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
      DamagedError: its files are damaged.
      UsageError: no such step, or data with another fingerprint.
    """
    if step not in self.steps():
      raise errors.UsageError(
        f'{self._directory}: no checkpoint of step {step}; there are'
        f' {", ".join(map(str, self.steps())) or "none"}.'
      )
    manager = self._last if step in self._last.all_steps() else self._best
    return _restore(manager, step, template, fingerprint)

  def wait(self) -> None:
    """Waits for the save under way; raises if it failed."""
    self._last.wait_until_finished()

  def close(self) -> None:
    """Waits and closes; raises if a save failed."""
    self._last.close()
    self._best.close()


def _restore(
  manager: ocp.CheckpointManager,
  step: int,
  template: TrainState,
  fingerprint: str,
) -> tuple[TrainState, dict[str, Any]]:
  path = pathlib.Path(manager.directory) / str(step)
  part = ocp.args.Composite
  try:
    restored = manager.restore(
      step, args=part(description=ocp.args.JsonRestore())
    )
    description = restored['description']
    trained_on = description['data_fingerprint']
  except Exception as error:  # Whatever a damaged file makes orbax raise.
    raise _damaged(path, error) from error
  if trained_on != fingerprint:
    raise errors.UsageError(
      f'checkpoint {path} was trained on data with the fingerprint'
      f' {trained_on}, but the history store has {fingerprint}; use the same'
      ' data, or another workdir.'
    )
  abstract = jax.tree.map(_abstract, template)
  try:
    restored = manager.restore(
      step, args=part(state=ocp.args.StandardRestore(abstract))
    )
    state = restored['state']
    expected = description.pop(_CHECKSUM)
  except Exception as error:  # As above.
    raise _damaged(path, error) from error
  if _checksum(state, description) != expected:
    raise _damaged(path, 'its checksum does not match')
  return state, description


def _damaged(path: pathlib.Path, reason: object) -> DamagedError:
  first = (str(reason).splitlines() or [type(reason).__name__])[0]
  return DamagedError(f'checkpoint {path} is damaged: {first[:200]}')


def _checksum(state: TrainState, description: Mapping[str, Any]) -> int:
  """Covers values, which orbax does not: a flipped bit would be trained on."""
  text = json.dumps(description, sort_keys=True)
  return zlib.crc32(text.encode()) ^ int(_checksum_of_values(state))


@jax.jit
def _checksum_of_values(state: TrainState) -> jax.Array:
  """Returns a sum over all elements, uint32: the same on every mesh.

  Each element's bits are mixed with its place by steps that can be undone, so
  one changed element always changes the sum; several, but for 1 in 2^32.
  """
  total = jnp.zeros((), jnp.uint32)
  for number, leaf in enumerate(jax.tree.leaves(state)):
    bits = _words(leaf)
    place = jnp.full(bits.shape, number * 0x9E3779B9 % 2**32, jnp.uint32)
    for axis in range(bits.ndim):
      index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
      place = _mix(place ^ index)
    total += jnp.sum(_mix(bits ^ place), dtype=jnp.uint32)
  return total


def _words(leaf: jax.Array) -> jax.Array:
  """Returns the bits of an array as unsigned integers of 32 bits."""
  if leaf.dtype.itemsize == 8:
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
  kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, kind).astype(jnp.uint32)


def _mix(bits: jax.Array) -> jax.Array:
  """A permutation of 32 bits in which each depends on all."""
  for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
    bits = (bits ^ bits >> shift) * jnp.uint32(factor)
  return bits ^ bits >> 16


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
