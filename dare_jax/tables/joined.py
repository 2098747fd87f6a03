"""Tables of a field and their slots in one array: how they lie on TPUs.

A TPU keeps arrays in tiles of 128 lanes. A table 16 wide has its rows across
these: to reach a row is to read whole tiles, or the compiler copies the table
into another layout in each step. Here all that belongs to a row, of each table
of the field and of its optimizer's slots, lies in a line of 128 lanes, or of a
multiple; rows that fill no more than half of one lie two to a line. A step
reads the line of a row once, and writes it once.

So tables lie in memory alone: `apart` gives them back, bit for bit, as
checkpoints and all other readers have them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dare_jax.tables import exchange
from dare_jax.tables import row_plan


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Joined:
  """Some tables of a field with their slots.

  Attributes:
    lines: float32 or uint32 [lines, lanes], the rows of the tables and slots
      side by side; a device's block of it inside `jax.shard_map`.
    plan: where each table and slot lies in a line.
  """

  lines: Any
  plan: row_plan.Plan = dataclasses.field(metadata={'static': True})

  def take(self, rows: jax.Array, ascending: bool = True) -> jax.Array:
    """Returns the lines of rows; zeros for rows beyond the block.

    Args:
      rows: int [u], rows of the block, distinct.
      ascending: whether the rows are ascending.
    """
    is_own = self.plan.rows_a_line == 1
    line = self.plan.line(rows)
    return exchange.take(self.lines, line, ascending and is_own)

  def rows(self, lines: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns the rows [u, row_lanes] in the lines that `take` gave."""
    if self.plan.rows_a_line == 1:
      return lines
    first, second = jnp.split(lines, 2, axis=1)
    return jnp.where(self.plan.is_second(rows), second, first)

  def tables_of(self, rows: jax.Array, ascending: bool) -> jax.Array:
    """Returns the rows of all tables, side by side, [u, sum of dims]."""
    found = self.plan.unpack(self.rows(self.take(rows, ascending), rows))
    return jnp.concatenate(
      [found[name, None] for name in self.plan.names], axis=1
    )

  def put(
    self,
    lines: jax.Array,
    rows: jax.Array,
    values: jax.Array,
    padding: jax.Array,
  ) -> Joined:
    """Writes rows back in place, but for the padding row.

    Args:
      lines: [u, lanes], the lines that `take` returned for the rows.
      rows: int [u], rows of the block, ascending and distinct.
      values: [u, row_lanes], the new rows.
      padding: int, the row of the block that never moves; negative where
        another device has it.
    """
    beyond = jnp.iinfo(rows.dtype).max
    stays = rows == padding
    if self.plan.rows_a_line == 1:
      where, new = jnp.where(stays, beyond, rows), values
    else:
      own = jnp.where(stays[:, None], self.rows(lines, rows), values)
      where, new = self._in_pairs(lines, rows, own)
      spare = beyond - jnp.arange(len(rows), dtype=rows.dtype)
      where = jnp.where(where < 0, spare, where)
    table = self.lines.at[where].set(new, mode='drop', unique_indices=True)
    return dataclasses.replace(self, lines=table)

  def _in_pairs(
    self, lines: jax.Array, rows: jax.Array, values: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns each line that rows are to be written to, once; -1 elsewhere.

    Of two rows of one line, which are neighbours among ascending ones, the
    first writes both.
    """
    line, is_second = self.plan.line(rows), self.plan.is_second(rows)
    follows = line[1:] == line[:-1]
    no = exchange.varying(jnp.zeros(1, bool))
    has_next = jnp.concatenate([follows, no])[:, None]
    after = jnp.concatenate([values[1:], values[-1:]])
    first, second = jnp.split(lines, 2, axis=1)
    first = jnp.where(is_second, first, values)
    second = jnp.where(is_second, values, jnp.where(has_next, after, second))
    where = jnp.where(jnp.concatenate([no, follows]), -1, line)
    return where, jnp.concatenate([first, second], axis=1)

  def read(self, column: row_plan.Column) -> jax.Array:
    """Returns one value of every row, [rows, ...]: a table, or a slot."""
    if self.plan.rows_a_line == 1:
      return column.of_lanes(self.lines)
    halves = [
      column.of_lanes(half) for half in jnp.split(self.lines, 2, axis=1)
    ]
    parts = jnp.stack(halves, axis=1).reshape(
      -1, 2 * -(-self.plan.part_rows // 2), *column.shape
    )
    return parts[:, : self.plan.part_rows].reshape(-1, *column.shape)

  def write(self, column: row_plan.Column, values: jax.Array) -> Joined:
    """Returns the lines with one value of every row; undoes `read`."""
    own = column.as_lanes(values, self.lines.dtype)[:, None]
    if self.plan.rows_a_line == 2:
      parts = own.reshape(-1, self.plan.part_rows, column.lanes)
      filling = self.plan.part_rows % 2
      parts = jnp.pad(parts, ((0, 0), (0, filling), (0, 0)))
      own = parts.reshape(-1, 2, column.lanes)
    lines = self.lines
    for number in range(self.plan.rows_a_line):
      start = number * self.plan.row_lanes + column.start
      lines = lines.at[:, start : start + column.lanes].set(own[:, number])
    return dataclasses.replace(self, lines=lines)


def empty(plan: row_plan.Plan) -> Joined:
  """Returns lines of zeros."""
  return Joined(jnp.zeros(plan.shape, plan.dtype), plan)


def join(
  plan: row_plan.Plan, tables: Mapping[str, jax.Array], slots: Mapping[str, Any]
) -> Joined:
  """Returns tables and their slots as lines of memory, one for each row.

  Args:
    plan: where in a line each value of a row lies.
    tables: name -> table [rows, dim], in the order of storage.
    slots: name -> the slots of the table's optimizer.
  """
  made = empty(plan)
  for name in plan.names:
    values = plan.values(name, tables[name], slots[name])
    for (_, slot), value in values.items():
      made = made.write(plan.column(name, slot), value)
  return made


def apart(
  tables: Mapping[str, Any],
  slots: Mapping[str, Any],
  read: Callable[[Joined, row_plan.Column], Any] = Joined.read,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns stored tables and slots by the name of the table, none joined.

  Args:
    tables: the tables as stored.
    slots: table -> its optimizer slots.
    read: returns the value that takes the place of a joined table or slot.
  """
  found, own = {}, dict(slots)
  for key, table in tables.items():
    if not isinstance(table, Joined):
      found[key] = table
      continue
    values = {(c.table, c.slot): read(table, c) for c in table.plan.columns}
    for name in table.plan.names:
      found[name] = values[name, None]
      own[name] = table.plan.with_rows(name, slots[name], values)
  return found, own


def names(tables: Mapping[str, Any]) -> list[str]:
  """Returns the names of some stored tables, joined or not."""
  found: list[str] = []
  for key, table in tables.items():
    found += table.plan.names if isinstance(table, Joined) else [key]
  return found


def read(tables: Mapping[str, Any], name: str) -> jax.Array:
  """Returns one of some stored tables, joined or not."""
  key, column = _place(tables, name)
  return tables[key] if column is None else _read(tables[key], column)


def write(
  tables: Mapping[str, Any], name: str, table: jax.Array
) -> dict[str, Any]:
  """Returns stored tables in which one has other values.

  Args:
    tables: name -> table as stored, apart or joined; they are donated.
    name: which table.
    table: its new values, [rows, dim] in the order of storage.
  """
  key, column = _place(tables, name)
  if column is not None:
    table = _write(tables[key], column, table)
  return {**tables, key: table}


_read = jax.jit(Joined.read, static_argnums=1)
_write = jax.jit(Joined.write, static_argnums=1, donate_argnums=0)


def _place(
  tables: Mapping[str, Any], name: str
) -> tuple[str, row_plan.Column | None]:
  """Returns the key of a table, and its column where that is joined."""
  for key, table in tables.items():
    if isinstance(table, Joined) and name in table.plan.names:
      return key, table.plan.column(name)
  return name, None
