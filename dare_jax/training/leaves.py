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
  shapes, structure = jax.tree.flatten(template)
  handler = ocp.PyTreeCheckpointHandler()
  try:
    for number, shape in enumerate(shapes):
      item: list[Any] = [ocp.PLACEHOLDER] * len(shapes)
      item[number] = jax.ShapeDtypeStruct(
        shape.shape, shape.dtype, sharding=shape.sharding
      )
      options = list(item)
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
      yield jax.tree.leaves(found, is_leaf=is_left_out)[number]
  finally:
    handler.close()
