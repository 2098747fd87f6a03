"""Trains the tables: all rows of small ones, the batch's rows of large ones.

Plain differentiation makes a gradient as large as the table, and a plain
optimizer then touches every row. Here the rows that a batch reads become a
compact table, the model runs on that one, and rows and their optimizer slots
are written back in place. The cost follows the batch, not the catalogue. A
large table is split over the devices by rows, as `tables.layout` orders them;
small ones are on every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias
import zlib

import jax
import jax.numpy as jnp
import optax

from dare_jax import embeddings
from dare_jax import types
from dare_jax.data import compact
from dare_jax.models import ranker_config
from dare_jax.parallel import mesh
from dare_jax.tables import exchange
from dare_jax.tables import layout
from dare_jax.tables import optimizers
from dare_jax.tables import row_move

Tables: TypeAlias = Mapping[str, jax.Array]
Rows: TypeAlias = Mapping[str, jax.Array]


class TableUpdater:
  """Gathers, updates and writes back the tables of a ranker.

  `gather`, `update` and `find_rows` are for use inside `jax.shard_map`; there
  a large table is this device's block of it.

  Attributes:
    vocab_sizes: rows of the large tables, by field.
    is_row_sparse: whether only the batch's rows of these move.
  """

  def __init__(
    self, config: ranker_config.RankerConfig, optim: Any, total_steps: int
  ) -> None:
    """Makes an updater.

    Raises:
      UsageError: a bad field of `optim`.
    """
    optimizers.check(optim)
    self.vocab_sizes = {
      feature.name: feature.vocab_size
      for feature in config.content
      if feature.vocab_size >= optim.row_sparse_from
    }
    field_of = {
      f'{feature.name}_{suffix}': feature.name
      for feature in config.features
      for suffix in embeddings.PLANS[config.plan].suffixes
    }
    self._names = {
      field: [name for name, own in field_of.items() if own == field]
      for field in self.vocab_sizes
    }
    self._large = {
      name: field
      for name, field in field_of.items()
      if field in self.vocab_sizes
    }
    self._optimizers = optimizers.table_optimizers(optim, field_of, total_steps)
    self.is_row_sparse = optimizers.is_row_sparse(optim)
    self._dtype = jnp.dtype(optim.table_dtype)

  def stored(self, tables: Tables) -> dict[str, jax.Array]:
    """Returns fresh tables, large ones with `stored_rows` rows, as stored."""
    return {
      name: table.astype(self._dtype) if name in self._large else table
      for name, table in tables.items()
    }

  def init_slots(self, tables: Tables) -> dict[str, Any]:
    """Returns fresh slots for stored tables; float32 whatever these are."""
    return {
      name: self._optimizers[name].init(row_move.as_float32(table))
      for name, table in tables.items()
    }

  def stored_rows(self, field: str, rows: int) -> int:
    """Returns how many rows the tables of a field have in storage."""
    return layout.padded(rows) if field in self.vocab_sizes else rows

  def position(self, field: str, row: types.Array) -> types.Array:
    """Returns where rows of a field's tables lie in storage."""
    if field not in self.vocab_sizes:
      return row
    return layout.position(row, layout.padded(self.vocab_sizes[field]))

  def num_rows(self, name: str, table: jax.Array) -> int:
    """Returns the rows of a table without those that only fill it up."""
    return self.vocab_sizes.get(self._large.get(name, ''), table.shape[0])

  def by_id(self, tables: Tables) -> dict[str, jax.Array]:
    """Returns stored tables as models outside training have them: row = id."""

    def of(name: str, table: jax.Array) -> jax.Array:
      rows = jnp.arange(self.num_rows(name, table))
      return table[self.position(self._large.get(name, ''), rows)]

    return {name: of(name, table) for name, table in tables.items()}

  def compact_bytes(self, tables: Tables, counts: Mapping[str, int]) -> int:
    """Returns the bytes of what `gather` makes of large tables.

    Args:
      tables: of any number of rows.
      counts: field -> rows that a batch reads.
    """
    elements = sum(
      counts.get(field, 0) * tables[name].shape[1]
      for name, field in self._large.items()
    )
    return 4 * elements

  def specs(self, tables: Tables) -> tuple[Any, Any]:
    """Returns how tables and their slots are split over the devices."""
    of_table = {
      name: mesh.SPLIT if name in self._large else mesh.WHOLE for name in tables
    }
    of_slots = {}
    for name, table in tables.items():
      is_row = row_move.row_leaves(self._optimizers[name], table.shape[1])
      spec = of_table[name]
      of_slots[name] = jax.tree.map(
        lambda flag, spec=spec: spec if flag else mesh.WHOLE, is_row
      )
    return of_table, of_slots

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
    gathered = dict(tables)
    for field, names in self._names.items():
      found = exchange.gather([tables[name] for name in names], rows[field])
      for name, values in zip(names, found, strict=True):
        gathered[name] = row_move.as_float32(values)
    return gathered

  def squared_norms(
    self, name: str, grads: Sequence[jax.Array], rows: Rows, own_rows: int
  ) -> list[jax.Array]:
    """Returns the squared lengths of gradients of a table, of the whole batch.

    A row that several devices read has the sum of their gradients, which only
    its owner can know.

    Args:
      name: of the table.
      grads: each as in `update`.
      rows: that the batch reads.
      own_rows: of the table, of a large one in this device's block.
    """

    def owner(rows: Any, grads: Any, turn: Any, carry: Any) -> Any:
      del rows, turn
      pairs = zip(carry, grads, strict=True)
      return [total + jnp.sum(jnp.square(grad)) for total, grad in pairs]

    zeros = [jnp.zeros((), grad.dtype) for grad in grads]
    if name not in self._large:
      return owner(None, grads, None, zeros)
    own = exchange.give_back(
      owner,
      [exchange.varying(zero) for zero in zeros],
      grads,
      rows[self._large[name]],
      own_rows,
    )
    return jax.lax.psum(own, mesh.AXIS)

  def update(
    self,
    tables: Tables,
    slots: Mapping[str, Any],
    grads: Tables,
    rows: Rows,
    step: jax.Array,
  ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """Returns the next tables and slots.

    Args:
      tables: whole tables, blocks of large ones.
      slots: of their optimizers.
      grads: by the elements of what `gather` made; of large tables those of
        this device's part of the batch.
      rows: that the batch reads.
      step: seeds the rounding of bfloat16 tables.
    """
    new_tables, new_slots = {}, {}
    for name, table in tables.items():
      if name not in self._large:
        new_tables[name], new_slots[name] = _move_all(
          self._optimizers[name], table, slots[name], grads[name]
        )
    move = self._move_rows if self.is_row_sparse else self._move_by_rows
    for field, names in self._names.items():
      moved = move(
        {name: (tables[name], slots[name]) for name in names},
        [grads[name] for name in names],
        rows[field],
        step,
      )
      for name, (table, own) in moved.items():
        new_tables[name], new_slots[name] = table, own
    order = list(tables)  # A tree of the same structure as before.
    return (
      {name: new_tables[name] for name in order},
      {name: new_slots[name] for name in order},
    )

  def _move_rows(
    self,
    whole: Mapping[str, tuple[jax.Array, Any]],
    grads: list[jax.Array],
    rows: jax.Array,
    step: jax.Array,
  ) -> Any:
    """Moves the rows of a batch, and leaves all others alone."""
    own_rows = len(next(iter(whole.values()))[0])
    first = exchange.first_row(own_rows)
    counts = {name: slots for name, (_, slots) in whole.items()}

    def owner(
      rows: jax.Array, grads: list[jax.Array], turn: jax.Array, carry: Any
    ) -> Any:
      moved = {}
      for (name, (table, slots)), grad in zip(
        carry.items(), grads, strict=True
      ):
        seed = jax.random.key(zlib.crc32(name.encode()))
        for number in (step, first, turn):
          seed = jax.random.fold_in(seed, number)
        move = row_move.RowMove(self._optimizers[name], rows, -first, seed)
        moved[name] = move(table, slots, counts[name], grad)
      return moved

    return exchange.give_back(owner, dict(whole), grads, rows, own_rows)

  def _move_by_rows(
    self,
    whole: Mapping[str, tuple[jax.Array, Any]],
    grads: list[jax.Array],
    rows: jax.Array,
    step: jax.Array,
  ) -> Any:
    """Moves all rows; those that are not in the batch have no gradient."""
    del step

    def owner(
      rows: jax.Array, grads: list[jax.Array], turn: jax.Array, carry: Any
    ) -> Any:
      del turn
      return [
        total.at[rows].add(grad, mode='drop')
        for total, grad in zip(carry, grads, strict=True)
      ]

    tables = [table for table, _ in whole.values()]
    zeros = [jnp.zeros_like(table) for table in tables]
    dense = exchange.give_back(owner, zeros, grads, rows, len(tables[0]))
    return {
      name: _move_all(self._optimizers[name], table, slots, grad)
      for (name, (table, slots)), grad in zip(whole.items(), dense, strict=True)
    }


def _move_all(
  optimizer: optax.GradientTransformation,
  table: jax.Array,
  slots: Any,
  grads: jax.Array,
) -> tuple[jax.Array, Any]:
  update, slots = optimizer.update(grads, slots, table)
  return optax.apply_updates(table, update), slots
