"""Trains the tables: all rows of small ones, the batch's rows of large ones.

Plain differentiation makes a gradient as large as the table, and a plain
optimizer then touches every row. Here the rows that a batch reads become a
compact table, the model runs on that one, and rows and their optimizer slots
are written back in place. The cost follows the batch, not the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import TypeAlias
import zlib

import jax
import jax.numpy as jnp
import optax

from dare_jax import embeddings
from dare_jax import types
from dare_jax.data import compact
from dare_jax.models import ranker
from dare_jax.training import optimizers

Tables: TypeAlias = Mapping[str, jax.Array]
Rows: TypeAlias = Mapping[str, jax.Array]


class TableUpdater:
  """Gathers, updates and writes back the tables of a ranker.

  Attributes:
    vocab_sizes: rows of the tables of each field that is trained by rows.
  """

  def __init__(
    self, config: ranker.RankerConfig, optim: Any, total_steps: int
  ) -> None:
    """Makes an updater.

    Raises:
      UsageError: a bad field of `optim`.
    """
    optimizers.check(optim)
    self.vocab_sizes = {
      feature.name: feature.vocab_size
      for feature in config.content
      if optimizers.is_row_sparse(optim)
      and feature.vocab_size >= optim.row_sparse_from
    }
    field_of = {
      f'{feature.name}_{suffix}': feature.name
      for feature in config.features
      for suffix in embeddings.PLANS[config.plan].suffixes
    }
    self._by_rows = {
      name: field
      for name, field in field_of.items()
      if field in self.vocab_sizes
    }
    self._optimizers = optimizers.table_optimizers(optim, field_of, total_steps)
    self._dtype = jnp.dtype(optim.table_dtype)

  def init(self, tables: Tables) -> tuple[Tables, Any]:
    """Returns the tables as they are stored, and their optimizers' slots.

    Slots are float32 whatever the tables are.
    """
    slots = {name: self._optimizers[name].init(tables[name]) for name in tables}
    stored = {
      name: table.astype(self._dtype) if name in self._by_rows else table
      for name, table in tables.items()
    }
    return stored, slots

  def find_rows(self, batch: types.Batch) -> types.Batch:
    """Returns the batch with rows for each field that needs them.

    Where `batch.rows` has a field, the host has done it ahead of the step.
    """
    for field, size in self.vocab_sizes.items():
      if field not in batch.rows:
        batch = compact.find_on_device(batch, field, size)
    return batch

  def gather(self, tables: Tables, rows: Rows) -> dict[str, jax.Array]:
    """Returns the tables for the model: of large ones the batch's rows."""
    return {
      name: _take(table, rows[self._by_rows[name]]).astype(jnp.float32)
      if name in self._by_rows
      else table
      for name, table in tables.items()
    }

  def update(
    self,
    tables: Tables,
    slots: Mapping[str, Any],
    compact: Tables,
    grads: Tables,
    batch: types.Batch,
    step: jax.Array,
  ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """Returns the next tables and slots.

    Args:
      tables: whole tables.
      slots: of their optimizers.
      compact: what `gather` made of them.
      grads: by the elements of `compact`.
      batch: gives the rows.
      step: seeds the rounding of bfloat16 tables.
    """
    new_tables, new_slots = {}, {}
    for name, table in tables.items():
      if name not in self._by_rows:
        update, new_slots[name] = self._optimizers[name].update(
          grads[name], slots[name], table
        )
        new_tables[name] = optax.apply_updates(table, update)
        continue
      key = jax.random.fold_in(jax.random.key(zlib.crc32(name.encode())), step)
      new_tables[name], new_slots[name] = _move_rows(
        self._optimizers[name],
        batch.rows[self._by_rows[name]],
        (table, slots[name]),
        (compact[name], grads[name]),
        key,
      )
    return new_tables, new_slots


def _move_rows(
  optimizer: optax.GradientTransformation,
  rows: jax.Array,
  whole: tuple[jax.Array, Any],
  part: tuple[jax.Array, jax.Array],
  key: jax.Array,
) -> tuple[jax.Array, Any]:
  """Returns a table and its slots with the given rows moved by one step.

  Args:
    optimizer: of the table.
    rows: which move, as in `types.Batch`.
    whole: the table and its optimizer's slots.
    part: values and gradients of the rows.
    key: for the rounding of a bfloat16 table.
  """
  table, slots = whole
  values, grads = part
  is_row = _row_leaves(optimizer, table.shape[1])
  own = _map_rows(is_row, lambda slot: _take(slot, rows), slots)
  update, own = optimizer.update(grads, own, values)
  moved = _round(key, values + update, table.dtype)
  put = lambda new, old: _put(old, rows, new)
  return put(moved, table), _map_rows(is_row, put, own, slots)


def _take(table: jax.Array, rows: jax.Array) -> jax.Array:
  return table.at[rows].get(
    mode='fill', fill_value=0, unique_indices=True, indices_are_sorted=True
  )


def _put(table: jax.Array, rows: jax.Array, values: jax.Array) -> jax.Array:
  """Writes rows back in place, but for the padding row, which never moves."""
  padding = jnp.arange(len(rows), dtype=rows.dtype) == 0
  rows = jnp.where(padding, jnp.iinfo(rows.dtype).max, rows)
  return table.at[rows].set(values, mode='drop', unique_indices=True)


def _row_leaves(optimizer: optax.GradientTransformation, width: int) -> Any:
  """Returns which slots have a row for each of the table's, as a tree.

  Found by what happens to their shapes when a table gets more rows.

  Raises:
    ValueError: a slot follows the table's rows otherwise than row by row.
  """
  shapes = [
    jax.eval_shape(
      optimizer.init, jax.ShapeDtypeStruct((rows, width), jnp.float32)
    )
    for rows in (3, 5)
  ]

  def is_row(few: Any, many: Any) -> bool:
    if few.shape == many.shape:
      return False
    if (few.shape, many.shape) == ((3, *few.shape[1:]), (5, *few.shape[1:])):
      return True
    raise ValueError(
      'a table optimizer has a slot that depends on the number of rows, but'
      ' has no row for each of them; it cannot train tables by rows.'
    )

  return jax.tree.map(is_row, *shapes)


def _map_rows(is_row: Any, function: Any, new: Any, *old: Any) -> Any:
  """Applies a function to the slots that have rows; keeps the others of new."""
  return jax.tree.map(
    lambda flag, leaf, *rest: function(leaf, *rest) if flag else leaf,
    is_row,
    new,
    *old,
  )


def _round(key: jax.Array, values: jax.Array, dtype: Any) -> jax.Array:
  """Returns float32 values in `dtype`; bfloat16 is rounded stochastically.

  The expected value of the result is the value: steps below half a bfloat16
  apart are not lost. Random bits below the 16 that are cut off carry into them
  with the right probability.
  """
  if dtype == values.dtype:
    return values
  bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
  noise = jax.random.bits(key, values.shape, jnp.uint32) >> 16
  kept = (bits + noise) & jnp.uint32(0xFFFF0000)
  rounded = jax.lax.bitcast_convert_type(kept, jnp.float32)
  return jnp.where(jnp.isfinite(values), rounded, values).astype(dtype)
