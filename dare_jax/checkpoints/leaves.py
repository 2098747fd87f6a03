"""The arrays of a checkpoint one by one: only the one at hand is held twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp


def read(path: Any, template: Any) -> Iterator[jax.Array]:
  """Yields the arrays of a saved tree, in the order of its leaves.

  Read all at once, buffers of all of them are held beside the arrays.

  Args:
    path: where orbax has saved the tree.
    template: a tree of the same structure, with shapes, dtypes and shardings.

  Raises:
    Exception: of any kind, where a file is damaged.
  """
  handler = ocp.PyTreeCheckpointHandler()
  try:
    for number in range(len(jax.tree.leaves(template))):
      yield _read_one(handler, path, template, number)
  finally:
    handler.close()


def _read_one(handler: Any, path: Any, template: Any, number: int) -> jax.Array:
  shapes, structure = jax.tree.flatten(template)
  shape = shapes[number]
  # Orbax leaves out what has a placeholder.
  item: list[Any] = [ocp.PLACEHOLDER] * len(shapes)
  options = list(item)
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
  return jax.tree.leaves(found, is_leaf=is_left_out)[number]
