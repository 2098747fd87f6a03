"""Lengths and angles of the gradients of two roles of a table, step by step.

For a step, let a and r be the gradients of attention and representation of a
table, a_i and r_i those of its row i. Of a log window, means over its steps are
told (`NAMES`); of the whole training, histograms over the steps, and sums over
the rows of each group. A group is one id in tables with few rows, and else all
ids that occur about as often: group g has those that occur 2^(g-1) to 2^g - 1
times in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import tables as tables_lib
from dare_jax.parallel import mesh as mesh_lib

# Bins of a histogram of cosines, from -1 to 1; one half of them are below 0.
BINS = 40
# What is told of a log window, all but the lengths over `defined` steps:
# |a|, |r|; means of |a_i|, |r_i| over all rows of the table; cos(a, r); the
# mean of cos(a_i, r_i) over rows with both; the share of these below 0; the
# share of steps in which the two cosines before are below 0.
NAMES = (
  'attention_norm',
  'representation_norm',
  'attention_row_norm',
  'representation_row_norm',
  'cosine',
  'row_cosine',
  'row_conflict',
  'table_conflict',
  'conflict',
)
LENGTHS = NAMES[:4]
DEFINED = 'defined'
PREFIX = 'gradients'
# Of each group: rows times steps with both gradients, those of them with a
# cosine below 0, the sum of cosines, and of the lengths of either.
OF_GROUPS = ('steps', 'conflicts', 'cosine', 'attention', 'representation')
HISTOGRAMS = ('cosine', 'row_cosine')
_POPULARITY_GROUPS = 33
_MOST_IDS = 1 << 15  # rows of a table whose ids have a group each


@struct.dataclass
class Statistics:
  """Sums over the gradients of all tables since the training began.

  Attributes:
    group: table -> uint16 [rows in storage], the group of each row.
    sums: table -> float32 [groups, len(OF_GROUPS)].
    histograms: table -> float32 [len(HISTOGRAMS), BINS], steps.
  """

  group: Any
  sums: Any
  histograms: Any


def groups(counts: np.ndarray) -> tuple[np.ndarray, int]:
  """Returns the group of each id, and how many groups there are.

  >>> groups(np.zeros(3, int))[0].tolist()
  [0, 1, 2]

  Args:
    counts: int [ids], how often each occurs in the log.
  """
  if len(counts) <= _MOST_IDS:
    return np.arange(len(counts), dtype=np.uint16), len(counts)
  found = np.zeros(len(counts), np.uint16)
  some = counts > 0
  found[some] = np.floor(np.log2(counts[some])).astype(np.uint16) + 1
  return found, _POPULARITY_GROUPS


def fresh(
  tables: tables_lib.TableSet,
  counts: Mapping[str, np.ndarray],
  mesh: jax.sharding.Mesh,
) -> Statistics:
  """Returns the statistics before the first step, on a mesh.

  Args:
    tables: the tables of the model.
    counts: field -> int [ids], how often each id occurs in the log.
    mesh: the mesh of all devices.
  """
  shapes = abstract(tables, mesh)
  group = {}
  for name, spec in tables.specs.items():
    own, _ = groups(_counts_of(spec, counts))
    stored = np.zeros(tables.stored_rows(name), np.uint16)
    stored[tables.position(spec.field, np.arange(spec.rows))] = own
    group[name] = jax.make_array_from_callback(
      stored.shape, shapes.group[name].sharding, stored.__getitem__
    )
  zeros = lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding)
  return dataclasses.replace(
    jax.tree.map(zeros, dataclasses.replace(shapes, group={})), group=group
  )


def _counts_of(
  spec: tables_lib.TableSpec, counts: Mapping[str, np.ndarray]
) -> np.ndarray:
  """Returns the counts of a field's ids; of positions there are none."""
  return counts.get(spec.field, np.zeros(spec.rows, np.int64))[: spec.rows]


def abstract(
  tables: tables_lib.TableSet, mesh: jax.sharding.Mesh
) -> Statistics:
  """Returns the shapes and shardings of `fresh`."""
  split = specs(tables)

  def of(shape: tuple[int, ...], dtype: Any, spec: Any) -> Any:
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  number = lambda rows: rows if rows <= _MOST_IDS else _POPULARITY_GROUPS
  return Statistics(
    group={
      name: of((tables.stored_rows(name),), np.uint16, split.group[name])
      for name in tables.specs
    },
    sums={
      name: of((number(spec.rows), len(OF_GROUPS)), np.float32, mesh_lib.WHOLE)
      for name, spec in tables.specs.items()
    },
    histograms={
      name: of((len(HISTOGRAMS), BINS), np.float32, mesh_lib.WHOLE)
      for name in tables.specs
    },
  )


def specs(tables: tables_lib.TableSet) -> Statistics:
  """Returns how the parts are split over the devices: groups as tables are."""
  whole = dict.fromkeys(tables.specs, mesh_lib.WHOLE)
  return Statistics(tables.gathered_specs(), whole, whole)


def zero_sums(names: Iterable[str]) -> dict[str, jax.Array]:
  """Returns the sums of an empty log window, of the tables of these names."""
  return {
    f'{PREFIX}/{table}/{name}': jnp.zeros(())
    for table in names
    for name in (*NAMES, DEFINED)
  }


def add(
  seen: Statistics,
  name: str,
  fold: Callable[[Any, Any], Any],
  num_rows: int,
) -> tuple[Statistics, dict[str, jax.Array]]:
  """Returns the statistics with one more step, and that step's own sums.

  Args:
    seen: the statistics before the step, inside `jax.shard_map`.
    name: the name of the table.
    fold: sums an owner over the rows of its gradients of attention and
      representation, as `tables.TableUpdater.fold`.
    num_rows: number of rows of the table.
  """

  def owner(rows: Any, grads: list[jax.Array], total: Any) -> Any:
    group = seen.group[name]
    if rows is not None:
      group = group.at[rows].get(mode='fill', fill_value=0)
    scalars, of_groups = _of_rows(grads, group, len(total[1]))
    return total[0] + scalars, total[1] + of_groups

  nothing = jnp.zeros(8), jnp.zeros_like(seen.sums[name])
  scalars, of_groups = fold(owner, nothing)
  values = _of_step(scalars, num_rows)
  histogram = seen.histograms[name]
  for index, of in enumerate(HISTOGRAMS):
    histogram = histogram.at[index, _bin(values[of])].add(values[DEFINED])
  seen = dataclasses.replace(
    seen,
    sums={**seen.sums, name: seen.sums[name] + of_groups},
    histograms={**seen.histograms, name: histogram},
  )
  return seen, {f'{PREFIX}/{name}/{of}': v for of, v in values.items()}


def _of_rows(
  pair: list[jax.Array], group: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
  """Returns sums over rows: of all of them [8], and of each group's."""
  dot = jnp.sum(pair[0] * pair[1], axis=1)
  squares = [jnp.sum(jnp.square(grad), axis=1) for grad in pair]
  lengths = [jnp.sqrt(square) for square in squares]
  both = (lengths[0] > 0) & (lengths[1] > 0)
  product = jnp.where(both, lengths[0] * lengths[1], 1.0)
  cosine = jnp.where(both, jnp.clip(dot / product, -1.0, 1.0), 0.0)
  found = both.astype(jnp.float32)
  below = jnp.where(both & (dot < 0), 1.0, 0.0)
  per_row = jnp.stack([found, below, cosine, *lengths], axis=1)
  per_row = per_row.astype(jnp.float32)
  of_groups = jnp.zeros((count, len(OF_GROUPS))).at[group].add(per_row)
  scalars = jnp.stack([*map(jnp.sum, (*squares, dot))])
  return jnp.concatenate([scalars, per_row.sum(axis=0)]), of_groups


def _of_step(scalars: jax.Array, num_rows: int) -> dict[str, jax.Array]:
  """Returns `NAMES` and `DEFINED` of one step from its sums over rows."""
  square_a, square_r, dot, both, below, cosines, sum_a, sum_r = scalars
  norm_a, norm_r = jnp.sqrt(square_a), jnp.sqrt(square_r)
  defined = both > 0
  product = jnp.where(defined, norm_a * norm_r, 1.0)
  rows = jnp.maximum(both, 1.0)
  cosine, row_cosine = jnp.clip(dot / product, -1.0, 1.0), cosines / rows
  of_defined = (
    cosine,
    row_cosine,
    below / rows,
    jnp.where(cosine < 0, 1.0, 0.0),
    jnp.where(row_cosine < 0, 1.0, 0.0),
    jnp.ones(()),
  )
  lengths = (norm_a, norm_r, sum_a / num_rows, sum_r / num_rows)
  values = (*lengths, *(jnp.where(defined, v, 0.0) for v in of_defined))
  return dict(zip((*NAMES, DEFINED), values, strict=True))


def _bin(cosine: jax.Array) -> jax.Array:
  """Returns the bin of a cosine; below 0 is below the middle one, always."""
  half = BINS // 2
  place = jnp.floor(cosine * half).astype(jnp.int32) + half
  return jnp.clip(place, 0, BINS - 1)


def summarize(
  sums: Mapping[str, Any], names: Iterable[str]
) -> dict[str, float]:
  """Returns `table/name` -> mean of a log window; none where none is defined.

  Args:
    sums: the sums of the log window, as numbers.
    names: the names of the tables.
  """
  found = {}
  for table in names:
    for name in NAMES:
      of = 'steps' if name in LENGTHS else f'{PREFIX}/{table}/{DEFINED}'
      count = float(sums[of])
      if count > 0:
        total = float(sums[f'{PREFIX}/{table}/{name}'])
        found[f'{table}/{name}'] = total / count
  return found
