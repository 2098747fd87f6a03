"""Where the values and slots of a row lie in its line of memory."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Any
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import errors
from dare_jax.tables import layout

LANES = 128
# Table, and number of the slot among its slots' leaves; None: the table itself.
Key: TypeAlias = tuple[str, int | None]


@dataclasses.dataclass(frozen=True)
class Column:
  """Where one value of each row lies in the row.

  Attributes:
    table: the name of the table.
    slot: number among the leaves of the table's slots; None: the table's own.
    start: the first lane.
    shape: the shape of one row's value.
    dtype: the name of the value's dtype.
  """

  table: str
  slot: int | None
  start: int
  shape: tuple[int, ...]
  dtype: str

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def lanes(self) -> int:
    """Lanes of 32 bits that the value takes."""
    return -(-self.size * np.dtype(self.dtype).itemsize // 4)

  def of_lanes(self, rows: jax.Array) -> jax.Array:
    """Returns the value of each row [u, row_lanes], [u, ...]."""
    own = rows[:, self.start : self.start + self.lanes]
    dtype = np.dtype(self.dtype)
    if rows.dtype != np.uint32:
      values = own
    elif dtype.itemsize == 4:
      values = jax.lax.bitcast_convert_type(own, dtype)
    else:
      halves = [h.astype(jnp.uint16) for h in (own & 0xFFFF, own >> 16)]
      bits = jnp.concatenate(halves, axis=1)[:, : self.size]
      values = jax.lax.bitcast_convert_type(bits, dtype)
    return values.reshape(-1, *self.shape)

  def as_lanes(self, values: jax.Array, dtype: Any) -> jax.Array:
    """Returns a value of each row as it lies there, [u, lanes]."""
    own = values.reshape(len(values), -1)
    if dtype != np.uint32:
      return own.astype(dtype)
    if own.dtype.itemsize == 4:
      return jax.lax.bitcast_convert_type(own, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(own, jnp.uint16).astype(jnp.uint32)
    bits = jnp.pad(bits, ((0, 0), (0, own.shape[1] % 2)))
    low, high = jnp.split(bits, 2, axis=1)
    return low | high << 16


@dataclasses.dataclass(frozen=True)
class Plan:
  """How the rows of some tables of a field lie side by side.

  Attributes:
    names: the names of the tables.
    slots: for each table the tree of its optimizer slots.
    columns: the columns of the tables, then those of their slots that have a
      row for each row of the table.
    part_rows: rows of each of the parts that `layout` deals rows out to.
  """

  names: tuple[str, ...]
  slots: tuple[Any, ...]
  columns: tuple[Column, ...]
  part_rows: int

  @property
  def row_lanes(self) -> int:
    """Lanes of a row: half a line, or some lines."""
    used = self.columns[-1].start + self.columns[-1].lanes
    half = LANES // 2
    return half if used <= half else -(-used // LANES) * LANES

  @property
  def rows_a_line(self) -> int:
    return max(1, LANES // self.row_lanes)

  @property
  def dtype(self) -> str:
    """The dtype of lines: uint32 words, where not all is float32."""
    kinds = {column.dtype for column in self.columns}
    return 'float32' if kinds == {'float32'} else 'uint32'

  @property
  def shape(self) -> tuple[int, int]:
    lines = layout.PARTS * -(-self.part_rows // self.rows_a_line)
    return lines, self.rows_a_line * self.row_lanes

  def line(self, rows: jax.Array) -> jax.Array:
    """Returns the line of rows of a block; beyond it, of those beyond it."""
    if self.rows_a_line == 1:
      return rows
    height = -(-self.part_rows // 2)
    return rows // self.part_rows * height + rows % self.part_rows // 2

  def is_second(self, rows: jax.Array) -> jax.Array:
    """Returns whether rows lie in the second half of their line, [u, 1]."""
    return (rows % self.part_rows % self.rows_a_line == 1)[:, None]

  def column(self, table: str, slot: int | None = None) -> Column:
    return next(c for c in self.columns if (c.table, c.slot) == (table, slot))

  def unpack(self, rows: jax.Array) -> dict[Key, jax.Array]:
    """Returns the values of rows [u, row_lanes]."""
    return {(c.table, c.slot): c.of_lanes(rows) for c in self.columns}

  def pack(self, values: Mapping[Key, jax.Array], dtype: Any) -> jax.Array:
    """Returns rows [u, row_lanes] of these values; undoes `unpack`."""
    parts = [
      column.as_lanes(values[column.table, column.slot], dtype)
      for column in self.columns
    ]
    used = sum(part.shape[1] for part in parts)
    rows = jnp.concatenate(parts, axis=1)
    return jnp.pad(rows, ((0, 0), (0, self.row_lanes - used)))

  def with_rows(self, table: str, slots: Any, values: Mapping[Key, Any]) -> Any:
    """Returns all slots of a table.

    Args:
      table: the name of the table.
      slots: the slots that have no rows, None in the place of the others.
      values: the slots that have rows, as `unpack` returns them.
    """
    tree = self.slots[self.names.index(table)]
    others = iter(jax.tree.leaves(slots))
    return tree.unflatten(
      values[table, slot] if (table, slot) in values else next(others)
      for slot in range(tree.num_leaves)
    )

  def without_rows(self, table: str, slots: Any) -> Any:
    """Returns a table's slots without those that lie in lines: None there."""
    tree = self.slots[self.names.index(table)]
    own = {column.slot for column in self.columns if column.table == table}
    return tree.unflatten(
      None if slot in own else leaf
      for slot, leaf in enumerate(tree.flatten_up_to(slots))
    )

  def values(self, table: str, row: Any, slots: Any) -> dict[Key, Any]:
    """Returns the values of a table's columns, from its rows and its slots."""
    tree = self.slots[self.names.index(table)]
    leaves = tree.flatten_up_to(slots)
    own = [c.slot for c in self.columns if c.table == table]
    return {
      (table, slot): row if slot is None else leaves[slot] for slot in own
    }


def make(
  tables: Mapping[str, tuple[int, str]],
  slots: Mapping[str, Any],
  is_row: Mapping[str, Any],
  stored_rows: int,
) -> Plan:
  """Returns how tables of a field lie.

  Args:
    tables: name -> width of a table's rows, and its dtype.
    slots: name -> shapes of the table's optimizer slots, for any number of
      rows.
    is_row: name -> for each slot, whether it has a row for each row of the
      table.
    stored_rows: number of rows of each table in storage.

  Raises:
    UsageError: a slot of a dtype that cannot lie in lines.
  """
  columns: list[Column] = []

  def add(table: str, slot: int | None, shape: Any, dtype: Any) -> None:
    """Adds a column behind the last one."""
    last = columns[-1] if columns else None
    start = 0 if last is None else last.start + last.lanes
    if np.dtype(dtype).itemsize not in (2, 4):
      raise errors.UsageError(
        f'the optimizer of table {table!r} has a slot of dtype {dtype};'
        ' expected one of 2 or 4 bytes where tables lie joined.'
      )
    name = np.dtype(dtype).name
    columns.append(Column(table, slot, start, tuple(shape), name))

  for name, (dim, dtype) in tables.items():
    add(name, None, (dim,), dtype)
  for name in tables:
    flags = jax.tree.leaves(is_row[name])
    for slot, leaf in enumerate(jax.tree.leaves(slots[name])):
      if flags[slot]:
        add(name, slot, leaf.shape[1:], leaf.dtype)
  return Plan(
    names=tuple(tables),
    slots=tuple(jax.tree.structure(slots[name]) for name in tables),
    columns=tuple(columns),
    part_rows=stored_rows // layout.PARTS,
  )
