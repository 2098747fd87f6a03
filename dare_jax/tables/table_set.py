"""Named tables: which ids read them, how they lie in storage, how to read them.

A split table lies on all devices of a mesh, a block of rows on each, in the
order of `layout`; any other is whole on each device, in the order of ids.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any
from typing import TypeAlias
import zlib

import jax
import jax.numpy as jnp

from dare_jax import errors
from dare_jax import types
from dare_jax.parallel import mesh
from dare_jax.tables import exchange
from dare_jax.tables import joined
from dare_jax.tables import layout
from dare_jax.tables import optimizers
from dare_jax.tables import row_move
from dare_jax.tables import row_plan
from dare_jax.tables import unique

# Tables as stored: arrays by the name of the table, or `joined.Joined`.
Tables: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Mapping[str, jax.Array]
DTYPES = ('float32', 'bfloat16')
LAYOUTS = ('apart', 'joined')
_NORMAL = jax.nn.initializers.normal(0.01)


@dataclasses.dataclass(frozen=True)
class TableSpec:
  """The size and storage of one table.

  Attributes:
    field: the field whose ids read the table. Several tables may have one
      field.
    rows: how many ids the field has; id 0 is padding, whose row never moves.
    dim: width of a row.
    split: whether its rows are split over the devices, and a step reads the
      rows of its batch only. False is for tables of a few thousand rows or
      less.
    dtype: the dtype of what is stored, float32 or bfloat16; the latter for
      tables that are split. Rows are read, and optimizer slots kept, in
      float32.
  """

  field: str
  rows: int
  dim: int
  split: bool = True
  dtype: str = 'float32'

  def __post_init__(self) -> None:
    for name in ('rows', 'dim'):
      if getattr(self, name) < 1:
        raise errors.UsageError(
          f'a table of {self.field} has {name}={getattr(self, name)}; expected'
          ' 1 or more.'
        )
    if self.dtype not in DTYPES or (self.dtype != 'float32' and not self.split):
      raise errors.UsageError(
        f'a table of {self.field} has dtype={self.dtype!r}; expected one of'
        f' {", ".join(DTYPES)}, and float32 where split=False.'
      )


class TableSet:
  """Tables by name, as they are stored, and as models read them.

  `find_rows` and `gather` are for use inside `jax.shard_map` over a mesh that
  `make_mesh` made; there a split table is this device's block of it.

  Attributes:
    specs: name -> what the table is.
    vocab_sizes: field -> rows, of the fields whose tables are split.
    names: field -> names of its tables, of the same fields.
    plans: key of a joined array among stored tables -> what lies in it where.
  """

  def __init__(
    self,
    specs: Mapping[str, TableSpec],
    joined_for: optimizers.TableOptimizer
    | Mapping[str, optimizers.TableOptimizer]
    | None = None,
  ) -> None:
    """Makes a set.

    Args:
      specs: name -> what the table is.
      joined_for: the optimizer, or one of each table, whose slots shall lie
        beside the rows of split tables, in one array for the tables of a field
        (`joined`): what TPUs like. A table without one lies by itself, and
        all do for None.

    Raises:
      UsageError: tables of one field differ in rows, or only some are split;
        or slots that cannot lie beside rows.
    """
    self.specs = dict(specs)
    seen: dict[str, tuple[str, TableSpec]] = {}
    for name, spec in self.specs.items():
      first, other = seen.setdefault(spec.field, (name, spec))
      if (spec.rows, spec.split) != (other.rows, other.split):
        raise errors.UsageError(
          f'tables {first!r} and {name!r} are both read by ids of'
          f' {spec.field!r}, but have rows={other.rows} and {spec.rows},'
          f' split={other.split} and {spec.split}; make them alike, or give'
          ' them fields of their own.'
        )
    self.vocab_sizes = {
      field: spec.rows for field, (_, spec) in seen.items() if spec.split
    }
    self.names = {
      field: [name for name, spec in self.specs.items() if spec.field == field]
      for field in self.vocab_sizes
    }
    if isinstance(joined_for, optimizers.TableOptimizer):
      joined_for = dict.fromkeys(self.specs, joined_for)
    self.optimizers = dict(joined_for or {})
    self.plans = self._plans()

  def _plans(self) -> dict[str, row_plan.Plan]:
    plans = {}
    for field, names in self.names.items():
      own = {
        name: self.optimizers[name].transform
        for name in names
        if name in self.optimizers and self.optimizers[name].row_sparse
      }
      if not own:
        continue
      key = f'joined_{field}'
      if key in self.specs:
        raise errors.UsageError(
          f'a table is named {key!r}, as are the joined tables of {field};'
          ' give it another name.'
        )
      specs = {name: self.specs[name] for name in own}
      some = lambda spec: jax.ShapeDtypeStruct((3, spec.dim), jnp.float32)
      plans[key] = row_plan.make(
        {name: (spec.dim, spec.dtype) for name, spec in specs.items()},
        {n: jax.eval_shape(t.init, some(specs[n])) for n, t in own.items()},
        {n: row_move.row_leaves(t, specs[n].dim) for n, t in own.items()},
        self.stored_rows(names[0]),
      )
    return plans

  def stored_rows(self, name: str) -> int:
    """Returns how many rows a table has in storage: more where it is split."""
    spec = self.specs[name]
    return layout.padded(spec.rows) if spec.split else spec.rows

  def position(self, field: str, ids: types.Array) -> types.Array:
    """Returns where the rows of a field's ids lie in storage.

    Args:
      field: the field of the ids.
      ids: integers of any shape, NumPy or JAX, below the rows of its tables.
    """
    if field not in self.vocab_sizes:
      return ids
    return layout.position(ids, layout.padded(self.vocab_sizes[field]))

  def init(
    self,
    rng: jax.Array,
    initializer: Callable[..., jax.Array] = _NORMAL,
  ) -> dict[str, Any]:
    """Returns fresh tables as stored, the same on any mesh; row 0 is zeros.

    Call it under `jax.jit` with `out_shardings`, which splits them at once.

    Args:
      rng: a random key.
      initializer: one of `jax.nn.initializers`; it is called with the shape in
        storage.

    Where tables lie joined, their fresh slots are there as well.
    """
    made = {}
    for name, spec in self.specs.items():
      own = jax.random.fold_in(rng, zlib.crc32(name.encode()))
      shape = (self.stored_rows(name), spec.dim)
      table = initializer(own, shape, jnp.float32)
      made[name] = table.at[0].set(0.0)
    return self.join(self.as_stored(made))

  def as_stored(self, tables: Tables) -> dict[str, jax.Array]:
    """Returns tables in storage's order, split ones in their stored dtype.

    None of them joined yet.
    """

    def of(spec: TableSpec, table: jax.Array) -> jax.Array:
      return table.astype(spec.dtype) if spec.split else table

    return {name: of(self.specs[name], t) for name, t in tables.items()}

  def join(
    self, tables: Tables, slots: Mapping[str, Any] | None = None
  ) -> dict[str, Any]:
    """Returns tables in their layout: joined with their slots, or as given.

    Args:
      tables: what `as_stored` gave.
      slots: table -> its optimizer slots; None: fresh ones.
    """
    stored = dict(tables)
    for key, plan in self.plans.items():
      if not stored.keys() & set(plan.names):
        continue
      own = {name: stored.pop(name) for name in plan.names}
      of_rows = slots or {
        name: self.optimizers[name].transform.init(row_move.as_float32(table))
        for name, table in own.items()
      }
      stored[key] = joined.join(plan, own, of_rows)
    return stored

  def only_joined(self, stored: Tables) -> dict[str, Any]:
    """Returns the joined tables of what `join` returned."""
    return {key: stored[key] for key in self.plans}

  def with_joined(self, tables: Tables, made: Tables) -> dict[str, Any]:
    """Returns what `join` returned, from its argument and the joined tables."""
    gone = {name for plan in self.plans.values() for name in plan.names}
    return {n: t for n, t in tables.items() if n not in gone} | dict(made)

  def from_ids(self, tables: Tables) -> dict[str, Any]:
    """Returns tables by id, such as trained elsewhere, as stored.

    Where tables lie joined, they have fresh slots.

    Args:
      tables: name -> [rows, dim], row = id.
    """

    def of(name: str, table: jax.Array) -> jax.Array:
      """Returns one table in the order and size of storage."""
      spec = self.specs[name]
      if table.shape != (spec.rows, spec.dim):
        raise errors.UsageError(
          f'table {name!r} has the shape {table.shape}; expected'
          f' {(spec.rows, spec.dim)}, a row for each id.'
        )
      if not spec.split:
        return table
      stored = self.stored_rows(name)
      ids = layout.row_at(jnp.arange(stored), stored)
      return table.at[ids].get(mode='fill', fill_value=0)

    found = {name: of(name, t) for name, t in tables.items()}
    return self.join(self.as_stored(found))

  @functools.partial(jax.jit, static_argnums=0)
  def by_id(self, tables: Tables) -> dict[str, jax.Array]:
    """Returns stored tables as a model outside training has them: row = id."""

    def of(name: str, spec: TableSpec) -> jax.Array:
      table = joined.read(tables, name)
      return table[self.position(spec.field, jnp.arange(spec.rows))]

    names = joined.names(tables)
    return {name: of(name, self.specs[name]) for name in names}

  def partition_specs(self) -> dict[str, Any]:
    """Returns how the stored tables are split over the devices."""
    found = dict[str, Any](self.gathered_specs())
    for key, plan in self.plans.items():
      for name in plan.names:
        del found[name]
      found[key] = joined.Joined(mesh.SPLIT, plan)
    return found

  def gathered_specs(self) -> dict[str, jax.sharding.PartitionSpec]:
    """Returns how each table, and what `gather` returns of it, is split."""
    return {
      name: mesh.SPLIT if spec.split else mesh.WHOLE
      for name, spec in self.specs.items()
    }

  def find_rows(self, ids: Mapping[str, Any]) -> unique.UniqueRows:
    """Returns the rows that a device's part of a batch reads, and its ids.

    What `RowFinder` does on the host, ahead of the step and in less time.

    Args:
      ids: field -> JAX integers, an array or a tree of arrays, not negative
        and below the field's rows. Fields whose tables are not split stay as
        they are.
    """
    return unique.find_rows(ids, self.vocab_sizes)

  def gather(self, tables: Tables, rows: Rows) -> dict[str, jax.Array]:
    """Returns the tables that a model reads: of split ones the batch's rows.

    Args:
      tables: name -> [stored rows, dim], rows in the order of storage.
      rows: `UniqueRows.rows`: field -> int32 [u].

    Returns:
      float32 [u, dim] of each split table, in the order of `rows`; the other
      tables as they are.
    """
    gathered = {name: tables[name] for name in tables if name in self.specs}
    own_rows = lambda name: self.stored_rows(name) // exchange.num_devices()
    for key, plan in self.plans.items():
      asked = rows[self.specs[plan.names[0]].field]
      read = tables[key].tables_of
      found = exchange.collect(read, asked, own_rows(plan.names[0]))
      widths = [self.specs[name].dim for name in plan.names]
      parts = exchange.split(found, widths)
      gathered |= zip(plan.names, parts, strict=True)
    for field, names in self.names.items():
      apart = [name for name in names if name in tables]
      if apart:
        parts = exchange.gather([tables[name] for name in apart], rows[field])
        gathered |= zip(apart, parts, strict=True)
    split = [name for names in self.names.values() for name in names]
    return gathered | {n: row_move.as_float32(gathered[n]) for n in split}

  def gathered_bytes(self, counts: Mapping[str, int]) -> int:
    """Returns the bytes of what `gather` makes of split tables.

    Args:
      counts: field -> rows that a batch reads.
    """
    elements = sum(
      counts.get(spec.field, 0) * spec.dim
      for spec in self.specs.values()
      if spec.split
    )
    return 4 * elements
