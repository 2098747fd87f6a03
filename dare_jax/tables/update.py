"""Trains tables: all rows of small ones, the batch's rows of large ones.

Plain differentiation makes a gradient as large as the table, and a plain
optimizer then touches every row. Here the rows that a batch reads become a
compact table, the model runs on that one, and rows and their optimizer slots
are written back in place. The cost follows the batch, not the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias
from typing import TypeVar
import zlib

import jax
import jax.numpy as jnp
import optax

from dare_jax import errors
from dare_jax.parallel import mesh
from dare_jax.tables import exchange
from dare_jax.tables import joined
from dare_jax.tables import optimizers
from dare_jax.tables import row_move
from dare_jax.tables import table_set

Tables: TypeAlias = table_set.Tables
Rows: TypeAlias = Mapping[str, jax.Array]
T = TypeVar('T')


class TableUpdater:
  """Moves the tables of a set by the gradients of what `gather` made of them.

  `update`, `fold` and `squared_norms` are for use inside `jax.shard_map`; there
  a split table is this device's block of it.
  """

  def __init__(
    self,
    tables: table_set.TableSet,
    optimizer: optimizers.TableOptimizer
    | Mapping[str, optimizers.TableOptimizer],
  ) -> None:
    """Makes an updater.

    Args:
      tables: what is to be trained.
      optimizer: one for all tables, or name -> optimizer of the table.

    Raises:
      UsageError: a table without an optimizer; one in bfloat16 whose
        optimizer moves all rows; or not the optimizers that tables lie joined
        for.
      ValueError: slots that cannot follow the rows of a table.
    """
    optimizer = optimizers.by_name(optimizer, tables.specs)
    names = [name for plan in tables.plans.values() for name in plan.names]
    if any(tables.optimizers[name] != optimizer[name] for name in names):
      raise errors.UsageError(
        'the set of tables is joined for other optimizers; give both the same.'
      )
    for name, spec in tables.specs.items():
      if spec.dtype != 'float32' and not optimizer[name].row_sparse:
        raise errors.UsageError(
          f'table {name!r} is {spec.dtype}, which is for row-sparse optimizers;'
          ' its optimizer moves all rows.'
        )
    self._set = tables
    self._optimizers = optimizer

  def is_row_sparse(self, name: str) -> bool:
    """Returns whether only the batch's rows of a table move."""
    return self._set.specs[name].split and self._optimizers[name].row_sparse

  def init_slots(self, tables: Tables) -> dict[str, Any]:
    """Returns fresh slots for stored tables; float32 whatever these are.

    Slots of rows that lie joined with tables are there already: None here.
    """
    made = {
      name: self._transform(name).init(
        row_move.as_float32(joined.read(tables, name))
      )
      for name in self._set.specs
    }
    return self._without_rows(made)

  def join(
    self, tables: Tables, slots: Mapping[str, Any]
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns tables and slots in the layout of the set; undoes `apart`."""
    return self._set.join(tables, slots), self._without_rows(slots)

  def _without_rows(self, slots: Mapping[str, Any]) -> dict[str, Any]:
    """Returns slots without those that lie joined with their tables."""
    found = dict(slots)
    for plan in self._set.plans.values():
      for name in plan.names:
        found[name] = plan.without_rows(name, slots[name])
    return found

  def partition_specs(self) -> dict[str, Any]:
    """Returns how the slots of each table are split over the devices."""
    of_slots = {}
    for name, spec in self._set.gathered_specs().items():
      dim = self._set.specs[name].dim
      is_row = row_move.row_leaves(self._transform(name), dim)
      of_slots[name] = jax.tree.map(
        lambda flag, spec=spec: spec if flag else mesh.WHOLE, is_row
      )
    return self._without_rows(of_slots)

  def _transform(self, name: str) -> optax.GradientTransformation:
    return self._optimizers[name].transform

  def squared_norms(
    self, name: str, grads: Sequence[jax.Array], rows: Rows
  ) -> list[jax.Array]:
    """Returns the squared lengths of gradients of a table, of the whole batch.

    A row that several devices read has the sum of their gradients, which only
    its owner can know.

    Args:
      name: the name of the table.
      grads: gradients of the table's elements as `gather` made them, [u, dim]
        each.
      rows: field -> int32 [u], the rows that the batch reads.
    """

    def owner(rows: Any, grads: Any, carry: Any) -> Any:
      del rows
      pairs = zip(carry, grads, strict=True)
      return [total + jnp.sum(jnp.square(grad)) for total, grad in pairs]

    zeros = [jnp.zeros((), grad.dtype) for grad in grads]
    return self.fold(name, grads, rows, owner, zeros)

  def fold(
    self,
    name: str,
    grads: Sequence[jax.Array],
    rows: Rows,
    owner: Callable[[jax.Array | None, list[jax.Array], T], T],
    zeros: T,
  ) -> T:
    """Returns sums over the rows of a table's gradients, of the whole batch.

    Args:
      name: the name of the table.
      grads: gradients of the table's elements as `gather` made them, [u, dim]
        each.
      rows: field -> int32 [u], the rows that the batch reads.
      owner: returns the next sums, from three arguments: int [n], rows of its
        own block, those beyond the block to be left out, or None for all rows
        in order; for each table float [n, dim], the gradients of these rows,
        summed over all devices; and the sums so far.
      zeros: the sums that the first call gets.
    """
    if not self._set.specs[name].split:
      return owner(None, list(grads), zeros)
    own = exchange.give_back(
      lambda rows, grads, turn, carry: owner(rows, grads, carry),
      jax.tree.map(exchange.varying, zeros),
      grads,
      rows[self._set.specs[name].field],
      self._set.stored_rows(name) // exchange.num_devices(),
    )
    return jax.lax.psum(own, mesh.AXIS)

  def update(
    self,
    tables: Tables,
    slots: Mapping[str, Any],
    grads: Tables,
    rows: Rows,
    step: jax.Array,
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the next tables and slots.

    Args:
      tables: name -> table [rows, dim]; of a split table, the block of rows
        that this device owns.
      slots: name -> the slots of the table's optimizer.
      grads: name -> gradient of what `gather` returned for the table; of a
        split table, from this device's part of the batch.
      rows: field -> int32 [u], the rows that the batch reads.
      step: int32, the number of the step; seeds the rounding of bfloat16.
    """
    new_tables: dict[str, Any] = {}
    new_slots: dict[str, Any] = {}
    for name, spec in self._set.specs.items():
      if not spec.split:
        new_tables[name], new_slots[name] = _move_all(
          self._transform(name), tables[name], slots[name], grads[name]
        )
    for key, plan in self._set.plans.items():
      own = {name: slots[name] for name in plan.names}
      new_tables[key], moved = self._move_joined(
        tables[key],
        own,
        [grads[name] for name in plan.names],
        rows[self._set.specs[plan.names[0]].field],
        step,
      )
      new_slots |= moved
    for field, names in self._set.names.items():
      for is_sparse, move in (
        (True, self._move_rows),
        (False, self._move_by_rows),
      ):
        moving = [
          name
          for name in names
          if name in tables and self.is_row_sparse(name) == is_sparse
        ]
        if not moving:
          continue
        moved = move(
          {name: (tables[name], slots[name]) for name in moving},
          [grads[name] for name in moving],
          rows[field],
          step,
        )
        for name, (table, own) in moved.items():
          new_tables[name], new_slots[name] = table, own
    # Trees of the same structure as before.
    return (
      {key: new_tables[key] for key in tables},
      {name: new_slots[name] for name in slots},
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
      """Moves this device's rows of each table by one round's gradients."""
      moved = {}
      for (name, (table, slots)), grad in zip(
        carry.items(), grads, strict=True
      ):
        seed = _seed(name, step, first, turn)
        move = row_move.RowMove(self._transform(name), rows, -first, seed)
        moved[name] = move(table, slots, counts[name], grad)
      return moved

    return exchange.give_back(owner, dict(whole), grads, rows, own_rows)

  def _move_joined(
    self,
    table: joined.Joined,
    slots: Mapping[str, Any],
    grads: list[jax.Array],
    rows: jax.Array,
    step: jax.Array,
  ) -> tuple[joined.Joined, dict[str, Any]]:
    """Moves the rows of a batch; the line of each is read and written once."""
    plan = table.plan
    own_rows = self._set.stored_rows(plan.names[0]) // exchange.num_devices()
    first = exchange.first_row(own_rows)

    def owner(
      rows: jax.Array, grads: list[jax.Array], turn: jax.Array, carry: Any
    ) -> Any:
      """Moves this device's rows by one round's gradients, line by line."""
      table, left = carry[0], dict(carry[1])
      lines = table.take(rows)
      values = plan.unpack(table.rows(lines, rows))
      for name, grad in zip(plan.names, grads, strict=True):
        # Step counts are those before the step, however many rounds there are.
        own = plan.with_rows(name, slots[name], values)
        moved, own = row_move.moved_rows(
          self._transform(name),
          values[name, None],
          own,
          grad,
          _seed(name, step, first, turn),
        )
        values |= plan.values(name, moved, own)
        left[name] = plan.without_rows(name, own)
      new = plan.pack(values, lines.dtype)
      return table.put(lines, rows, new, -first), left

    carry = table, dict(slots)
    return exchange.give_back(owner, carry, grads, rows, own_rows)

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
      name: _move_all(self._transform(name), table, slots, grad)
      for (name, (table, slots)), grad in zip(whole.items(), dense, strict=True)
    }


def _seed(name: str, *numbers: jax.Array) -> jax.Array:
  """Returns a key of a table's own for some numbers, one after another."""
  seed = jax.random.key(zlib.crc32(name.encode()))
  for number in numbers:
    seed = jax.random.fold_in(seed, number)
  return seed


def _move_all(
  optimizer: optax.GradientTransformation,
  table: jax.Array,
  slots: Any,
  grads: jax.Array,
) -> tuple[jax.Array, Any]:
  update, slots = optimizer.update(grads, slots, table)
  return optax.apply_updates(table, update), slots
