"""The arrays of a checkpoint, a few at a time: only these are held twice."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import math
from typing import Any

import jax
import orbax.checkpoint as ocp

from dare_jax.checkpoints import checksum
from dare_jax.training import saved_form
from dare_jax.training import state as train_state

TrainState = train_state.TrainState
# Bytes of arrays that are read together. Each reading looks at what is known of
# all arrays, so to read small ones alone takes longer than their bytes.
_TOGETHER = 2**25


def saved(state: TrainState) -> tuple[TrainState, int]:
  """Returns a state in its saved form, and the checksum of its values.

  Tables that lie joined are brought apart one by one, on the host.
  """
  if not saved_form.is_joined(state):
    return state, checksum.of_values(state)
  found, own = [], 0
  for number, leaf in enumerate(saved_form.of_state(state)):
    own += checksum.part(number, leaf)
    found.append(saved_form.to_host(leaf))
    del leaf  # Else it is held while the next one is made.
  return saved_form.tree(state).unflatten(found), checksum.total(own)


def read_state(path: Any, template: TrainState) -> tuple[TrainState, int]:
  """Returns a saved state, and this process's part of its checksum.

  Args:
    path: the folder in which Orbax has saved the state.
    template: shapes, dtypes and shardings of the state.

  Raises:
    Exception: of any kind, where a file is damaged.
  """
  own = 0

  def counted() -> Iterator[jax.Array]:
    nonlocal own
    found = read(path, saved_form.shapes(template))
    for number, leaf in enumerate(found):
      own += checksum.part(number, leaf)
      yield leaf

  state = saved_form.to_state(template, counted())
  return state, own


def read(path: Any, template: Any) -> Iterator[jax.Array]:
  """Yields the arrays of a saved tree, in the order of its leaves.

  Read all at once, buffers of all of them are held beside the arrays.

  Args:
    path: the folder in which Orbax has saved the tree.
    template: a tree of the same structure, with shapes, dtypes and shardings.

  Raises:
    Exception: of any kind, where a file is damaged.
  """
  handler = ocp.PyTreeCheckpointHandler()
  try:
    for numbers in groups(jax.tree.leaves(template)):
      yield from _read_some(handler, path, template, numbers)
  finally:
    handler.close()


def groups(leaves: Sequence[Any], limit: int = _TOGETHER) -> Iterator[range]:
  """Yields the numbers of leaves to read together, one after another.

  Args:
    leaves: arrays, or their shapes and dtypes.
    limit: bytes that a group has at most; a leaf above it is read alone.

  >>> import numpy as np
  >>> [list(group) for group in groups([np.zeros(n) for n in (1, 2, 9, 3)], 32)]
  [[0, 1], [2], [3]]
  """
  start, held = 0, 0
  for number, leaf in enumerate(leaves):
    size = math.prod(leaf.shape) * leaf.dtype.itemsize
    if number > start and held + size > limit:
      yield range(start, number)
      start, held = number, 0
    held += size
  if leaves:
    yield range(start, len(leaves))


def _read_some(
  handler: Any, path: Any, template: Any, numbers: Sequence[int]
) -> list[jax.Array]:
  shapes, structure = jax.tree.flatten(template)
  # Orbax leaves out what has a placeholder.
  item: list[Any] = [ocp.PLACEHOLDER] * len(shapes)
  options = list(item)
  for number in numbers:
    shape = shapes[number]
    item[number] = jax.ShapeDtypeStruct(
      shape.shape, shape.dtype, sharding=shape.sharding
    )
    options[number] = ocp.ArrayRestoreArgs(
      sharding=shape.sharding, global_shape=shape.shape, dtype=shape.dtype
    )
  found = handler.restore(
    path,
    args=ocp.args.PyTreeRestore(
      item=jax.tree.unflatten(structure, item),
      restore_args=jax.tree.unflatten(structure, options),
    ),
  )
  is_left_out = lambda leaf: leaf is ocp.PLACEHOLDER
  every = jax.tree.leaves(found, is_leaf=is_left_out)
  return [every[number] for number in numbers]
