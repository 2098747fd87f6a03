"""The cases that every ranker is tested in: presets, plans and searches.

A new preset, plan or search is among them by being registered. Everything
runs on batches of one shape (see `examples`): six histories, some of them
padded. `CLOSE` is for sums in another order; where nothing is reordered,
equality is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import functools
from typing import Any

import chex
import jax
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax import models
from dare_jax import search
from dare_jax import types
from tests.models import examples

# A feature that is constant in the batch, as the target's time vector is, has
# its rounding multiplied by 1 / sqrt(1e-5) = 316 in batch normalisation:
# 316 * 2^-24 = 2e-5 for a value near 1, and a few of them add up.
CLOSE = {'rtol': 1e-4, 'atol': 5e-5}


# Presets of one table that are run with a table for each role, too.
_DECOUPLED_TOO = ('sdim', 'eta', 'twin_v2', 'twin_hard', 'din')
_CHOICES = ('plan', 'scorer', 'search', 'aggregation', 'use_time', 'aux_head')


def _cases() -> dict[str, dict[str, Any]]:
  """Every preset alone, then with each plan and search; none of them twice."""
  cases: dict[models.RankerConfig, tuple[str, dict[str, Any]]] = {}

  def add(name: str, preset: str, **options: Any) -> None:
    try:
      config = examples.build(preset, **options).config
    except ValueError:  # Nothing but the auxiliary head would teach a part.
      options['aux_head'] = True
      config = examples.build(preset, **options).config
    cases.setdefault(config, (name, dict(name=preset, **options)))

  for preset in models.PRESETS:
    add(preset, preset)
  for base in ('dare', 'twin'):
    for plan in embeddings.PLANS:
      if not _repeats_maps(embeddings.PLANS[plan]):
        add(f'{base}_plan_{plan}', base, plan=plan)
    for method in search.SEARCHES:
      add(f'{base}_search_{method}', base, search=method)
  for scorer in search.SCORERS:
    add(f'dare_scorer_{scorer}', 'dare', scorer=scorer)
  for preset in _DECOUPLED_TOO:
    add(f'{preset}_decoupled', preset, plan='decoupled')
  return dict(cases.values())


def _repeats_maps(plan: embeddings.Plan) -> bool:
  """Whether another plan has the same maps, after a single table."""
  return plan.projection is not None and plan.by_role is None


def _cover(
  cases: Mapping[str, dict[str, Any]], fields: Collection[str]
) -> list[str]:
  """Returns cases that have every choice of all cases at least once."""
  seen, cover = set(), []
  for name, options in cases.items():
    config = examples.build(**options).config
    choices = {(field, getattr(config, field)) for field in fields}
    if not choices <= seen:
      cover.append(name)
    seen |= choices
  return cover


def _each(names: Iterable[str], fast: Collection[str]) -> Any:
  """Returns the decorator of a test of these cases, slow but for some.

  All tests of a case come one after the other: its programs are compiled for
  them, and may be forgotten before those of the next.
  """
  return pytest.mark.parametrize(
    'case',
    [
      pytest.param(name, marks=[] if name in fast else pytest.mark.slow)
      for name in names
    ],
    scope='module',
  )


CASES = _cases()
# For what needs no compilation of its own: every choice but the plan, of which
# there are most, in each run of the tests; each pair of choices in the slow
# ones.
_PLAN = 'dare_plan_projected_concat'
ALL = _each(CASES, [*_cover(CASES, _CHOICES[1:]), _PLAN])
# For what compares each case with another model, which is compiled, too.
ALL_SEARCHES = _each(CASES, ('dare', 'twin_hard', 'twin_v2', 'sdim'))
# For what takes a compilation of its own.
EACH_CHOICE = _each(_cover(CASES, _CHOICES), ('dare', 'sdim'))


@functools.cache
def example(
  case: str, **changes: Any
) -> tuple[models.Ranker, dict[str, Any], types.Batch]:
  """Returns a model, variables and a batch of NumPy arrays."""
  model = examples.build(**(CASES[case] | changes))
  batch = jax.device_get(examples.make_batch())
  return model, examples.make_variables(model, batch), batch


@functools.cache
def measured(case: str) -> examples.Measured:
  return examples.measure(*example(case))


def check_same(
  measured: examples.Measured, expected: examples.Measured
) -> None:
  """Compares loss, batch statistics and every gradient."""
  for part in ('loss', 'batch_stats', 'grads'):
    chex.assert_trees_all_close(
      getattr(measured, part), getattr(expected, part), **CLOSE
    )


def check_same_padded(
  padded: examples.Measured, wanted: examples.Measured, more: int
) -> None:
  """What is measured is the same, what was found lies `more` further on."""
  check_same(padded, wanted)
  check_found(padded, wanted, more)


def check_found(
  padded: examples.Measured, wanted: examples.Measured, more: int
) -> None:
  """What was found lies `more` further on."""
  found, kept = padded.output.search, wanted.output.search
  np.testing.assert_array_equal(
    np.sort(np.where(found.mask, found.indices - more, -1))[
      ..., -kept.mask.shape[-1] :
    ],
    np.sort(np.where(kept.mask, kept.indices, -1)),
  )


def check_no_search(
  case: str, model: models.Ranker, variables: Any, batch: types.Batch
) -> None:
  """A model whose search keeps all there is equals one that attends to all."""
  everything = examples.build(**(CASES[case] | {'search': 'all'}))
  if search.SEARCHES[model.config.search].learns_by_aux:
    # Its auxiliary head pools by scores of its own.
    chex.assert_trees_all_close(
      examples.predict(model, variables, batch),
      examples.predict(everything, variables, batch),
      **CLOSE,
    )
    return
  check_same(
    examples.measure(model, variables, batch),
    examples.measure(everything, variables, batch),
  )


def rows_of(batch: types.Batch) -> dict[str, list[int]]:
  """Returns field -> the rows that a batch reads, padding's among them."""
  return {f: sorted({0} | used(batch, f)) for f in examples.VOCAB}


def select(
  tree: Any,
  rows: Mapping[str, list[int]],
  fill: Callable[[str, np.ndarray], np.ndarray] = lambda field, table: table,
) -> Any:
  """Returns tables of these rows alone, each as `fill` completes it."""

  def compact(path: Any, table: jax.Array) -> Any:
    field = path[-1].key.split('_')[0]
    return (
      fill(field, np.asarray(table)[rows[field]]) if field in rows else table
    )

  return jax.tree_util.tree_map_with_path(compact, tree)


def remap(batch: types.Batch, rows: Mapping[str, list[int]]) -> types.Batch:
  """Returns the batch with the places of its ids among `rows`."""

  def place(ids: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
      f: np.searchsorted(rows[f], v).astype(np.int32) for f, v in ids.items()
    }

  return batch.replace(
    history=batch.history.replace(ids=place(batch.history.ids)),
    targets=batch.targets.replace(ids=place(batch.targets.ids)),
  )


def check_compact(
  measured: examples.Measured,
  expected: examples.Measured,
  rows: Mapping[str, list[int]],
) -> None:
  """Compares with the whole tables' gradients at `rows`."""
  np.testing.assert_allclose(measured.loss, expected.loss, rtol=1e-6)
  cut = {field: list(range(len(some))) for field, some in rows.items()}
  chex.assert_trees_all_close(
    select(measured.grads['tables'], cut),
    select(expected.grads['tables'], rows),
    **CLOSE,
  )
  chex.assert_trees_all_close(
    measured.grads['params'], expected.grads['params'], **CLOSE
  )


def tables(grads: Any) -> list[tuple[str, np.ndarray]]:
  return [
    (name, np.asarray(grad))
    for name, grad in grads['tables']['encoder'].items()
  ]


def suffix(path: Any) -> str:
  return path[-1].key.split('_', 1)[1]


def attention_tables(model: models.Ranker) -> set[str]:
  table_of = embeddings.PLANS[model.config.plan].table_of
  return {name for (role, _), name in table_of.items() if role == 'attention'}


def is_decoupled(model: models.Ranker) -> bool:
  table_of = embeddings.PLANS[model.config.plan].table_of
  represented = {
    name for (role, _), name in table_of.items() if role != 'attention'
  }
  return not represented & attention_tables(model)


def used(batch: types.Batch, field: str) -> set[int]:
  """Ids of targets and real behaviors."""
  ids = np.asarray(batch.history.ids[field])[np.asarray(batch.history.mask)]
  targets = np.asarray(batch.targets.ids[field])
  return set(ids.tolist()) | set(targets.ravel().tolist())


def used_times(model: models.Ranker, batch: types.Batch) -> set[int]:
  index = np.arange(examples.LENGTH)
  distance = np.asarray(batch.end)[..., None] - index
  real = np.asarray(batch.history.mask)[:, None, :] & (distance > 0)
  ids = embeddings.position_ids(examples.LENGTH, model.config.exact_positions)
  return {0} | set(ids[distance[real]].tolist())
