"""The table of content vectors on the mesh, read from their prepared file."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import tables as tables_lib
from dare_jax.embeddings import content_vectors
from dare_jax.logs import id_map
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.tables import layout

_BLOCK_VALUES = 1 << 24  # that are read at a time


def shape(
  tables: tables_lib.TableSet, mesh: jax.sharding.Mesh
) -> jax.ShapeDtypeStruct:
  """Returns shape, dtype and sharding of the table of the given vectors."""
  name = content_vectors.TABLE
  spec = tables.specs[name]
  return jax.ShapeDtypeStruct(
    (tables.stored_rows(name), spec.dim),
    jnp.dtype(spec.dtype),
    sharding=mesh_lib.shardings(mesh, tables.partition_specs()[name]),
  )


def load(
  tables: tables_lib.TableSet, mesh: jax.sharding.Mesh, vectors: np.ndarray
) -> jax.Array:
  """Returns the table of the given vectors as stored.

  Each device's block is read by itself.

  Args:
    tables: the tables of the model.
    mesh: the mesh of all devices.
    vectors: float32 [items, width]; row i is that of id i + 2.
  """
  asked = shape(tables, mesh)
  split = tables.specs[content_vectors.TABLE].split
  rows, width = asked.shape

  def block(index: Any) -> np.ndarray:
    """Returns the rows of storage that one device holds."""
    start, stop, _ = index[0].indices(rows)
    made = np.zeros((stop - start, width), asked.dtype)
    step = max(1, _BLOCK_VALUES // width)
    for first in range(start, stop, step):
      place = np.arange(first, min(first + step, stop))
      ids = layout.row_at(place, rows) if split else place
      is_there = (ids >= id_map.FIRST) & (ids < id_map.FIRST + len(vectors))
      own = vectors[ids[is_there] - id_map.FIRST]
      made[place[is_there] - start] = own.astype(asked.dtype)
    return made

  return jax.make_array_from_callback(asked.shape, asked.sharding, block)
