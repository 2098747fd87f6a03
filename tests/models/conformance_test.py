"""What every ranker must do: all presets, with every plan and every search.

A new preset, plan or search is in here by being registered. Everything runs
on batches of one shape (see `examples`): six histories, some of them padded.
`_CLOSE` is for sums in another order; where nothing is reordered, equality is
exact.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dare_jax import embeddings
from dare_jax import layers
from dare_jax import models
from dare_jax import search
from dare_jax import types
from tests.models import examples

# A feature that is constant in the batch, as the target's time vector is, has
# its rounding multiplied by 1 / sqrt(1e-5) = 316 in batch normalisation:
# 316 * 2^-24 = 2e-5 for a value near 1, and a few of them add up.
_CLOSE = {'rtol': 1e-4, 'atol': 5e-5}


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


def _cover(cases: Mapping[str, dict[str, Any]]) -> list[str]:
  """Returns cases that have every choice of all cases at least once."""
  seen, cover = set(), []
  for name, options in cases.items():
    config = examples.build(**options).config
    choices = {(field, getattr(config, field)) for field in _CHOICES}
    if not choices <= seen:
      cover.append(name)
    seen |= choices
  return cover


_CASES = _cases()
_ALL = parameterized.named_parameters(*((name, name) for name in _CASES))
# For what takes a compilation of its own.
_EACH_CHOICE = parameterized.named_parameters(
  *((name, name) for name in _cover(_CASES))
)
# Equals go to the most recent, and equals are common.
_RANKS_BY_RECENCY = (search.CategorySearch, search.SimHashSearch)


@functools.cache
def _example(
  case: str, **changes: Any
) -> tuple[models.Ranker, dict[str, Any], types.Batch]:
  model = examples.build(**(_CASES[case] | changes))
  batch = examples.make_batch()
  return model, examples.make_variables(model, batch), batch


@functools.cache
def _measured(case: str) -> examples.Measured:
  return examples.measure(*_example(case))


def _check_same(
  measured: examples.Measured, expected: examples.Measured
) -> None:
  """Compares loss, batch statistics and every gradient."""
  for part in ('loss', 'batch_stats', 'grads'):
    chex.assert_trees_all_close(
      getattr(measured, part), getattr(expected, part), **_CLOSE
    )


class ConformanceTest(parameterized.TestCase):
  # Padding and what lies after the moment.

  @_ALL
  def test_more_left_padding_changes_nothing(self, case):
    model, variables, batch = _example(case)
    pad = lambda x: jnp.pad(x, ((0, 0), (2, 0)))
    history = batch.history.replace(
      ids=jax.tree.map(pad, batch.history.ids), mask=pad(batch.history.mask)
    )
    padded = batch.replace(history=history, end=batch.end + 2)
    expected = _measured(case)
    measured = examples.measure(model, variables, padded)
    _check_same(measured, expected)
    found, wanted = measured.output.search, expected.output.search
    np.testing.assert_array_equal(
      np.sort(np.where(found.mask, found.indices - 2, -1))[
        ..., -wanted.mask.shape[-1] :
      ],
      np.sort(np.where(wanted.mask, wanted.indices, -1)),
    )

  @_ALL
  def test_masked_ids_mean_nothing_and_get_no_gradient(self, case):
    model, variables, batch = _example(case)
    # Rows that only places without mask read.
    marked = {f: rows - 1 for f, rows in examples.VOCAB.items()}
    ids = {
      f: jnp.where(batch.history.mask, jnp.minimum(v, marked[f] - 1), marked[f])
      for f, v in batch.history.ids.items()
    }
    target_ids = {
      f: jnp.minimum(v, marked[f] - 1) for f, v in batch.targets.ids.items()
    }
    targets = batch.targets.replace(ids=target_ids)
    batch = batch.replace(
      history=batch.history.replace(ids=ids), targets=targets
    )
    zeros = jax.tree.map(lambda x: x * batch.history.mask, ids)
    clean = batch.replace(history=batch.history.replace(ids=zeros))
    measured = examples.measure(model, variables, batch)
    for path, grad in _tables(measured.grads):
      field = path.split('_')[0]
      if field in marked:
        assert not np.any(grad[marked[field]]), path
        assert not np.any(grad[0]), path
    chex.assert_trees_all_equal(
      measured.loss, examples.measure(model, variables, clean).loss
    )

  @_ALL
  def test_padding_row_and_unused_positions_get_no_gradient(self, case):
    model, variables, batch = _example(case)
    measured = _measured(case)
    used = {
      'item': _used(batch, 'item'),
      'category': _used(batch, 'category'),
      'time': _used_times(model, batch),
    }
    for path, grad in _tables(measured.grads):
      rows = set(np.flatnonzero(np.any(grad != 0, axis=-1)).tolist())
      assert rows <= used[path.split('_')[0]], path
      assert np.isfinite(grad).all(), path

  @_ALL
  def test_what_comes_after_a_moment_is_invisible(self, case):
    model, variables, batch = _example(case)
    batch = batch.replace(end=jnp.full_like(batch.end, 4))
    after = jnp.arange(examples.LENGTH) >= 4
    changed = batch.replace(
      history=batch.history.replace(
        ids=jax.tree.map(lambda x: jnp.where(after, 1, x), batch.history.ids)
      )
    )
    expected = examples.measure(model, variables, batch)
    measured = examples.measure(model, variables, changed)
    chex.assert_trees_all_equal(measured.loss, expected.loss)
    chex.assert_trees_all_equal(measured.output.logits, expected.output.logits)
    chex.assert_trees_all_close(measured.grads, expected.grads, **_CLOSE)

  @_ALL
  def test_empty_histories_are_finite_and_without_interest(self, case):
    model, variables, batch = _example(case)
    nothing = batch.replace(end=jnp.zeros_like(batch.end))
    padding = batch.replace(history=jax.tree.map(jnp.zeros_like, batch.history))
    for empty in (nothing, padding):
      measured = examples.measure(model, variables, empty)
      chex.assert_tree_all_finite((measured.loss, measured.grads))
      chex.assert_tree_all_finite(measured.batch_stats)
      assert not np.any(measured.output.search.mask)
      assert not np.any(examples.interest(model, variables, empty))
      chex.assert_tree_all_finite(examples.predict(model, variables, empty))
      for path, grad in _tables(measured.grads):
        table_of = embeddings.PLANS[model.config.plan].table_of
        target = table_of['representation', 'target']
        if not path.endswith(f'_{target}'):
          assert not np.any(grad), path

  # Axes.

  @_ALL
  def test_order_counts_only_through_positions(self, case):
    model, variables, batch = _example(case)
    if model.config.search in ('category', 'simhash'):
      self.skipTest('equals are told apart by recency')
    # All behaviors at one position: every time row but the target's is equal.
    tables = jax.tree_util.tree_map_with_path(
      lambda path, x: (
        x.at[1:].set(x[1]) if path[-1].key.startswith('time') else x
      ),
      variables['tables'],
    )
    variables = {**variables, 'tables': tables}
    batch = batch.replace(end=jnp.full_like(batch.end, examples.LENGTH))
    order = jnp.array([4, 0, 5, 2, 1, 3])
    shuffled = batch.replace(
      history=jax.tree.map(lambda x: x[:, order], batch.history)
    )
    expected = examples.measure(model, variables, batch)
    measured = examples.measure(model, variables, shuffled)
    grads = (measured.grads['params'], expected.grads['params'])
    chex.assert_trees_all_close(measured.loss, expected.loss, **_CLOSE)
    chex.assert_trees_all_close(*grads, **_CLOSE)

  @_ALL
  def test_candidates_are_independent_rows(self, case):
    # [3, m, c] -> [3 c, m, 1].
    self._check_split(case, lambda x: jnp.moveaxis(x, 2, 1), axis=2)

  @_ALL
  def test_moments_are_separate_windows(self, case):
    # [3, m, c] -> [3 m, 1, c].
    self._check_split(case, lambda x: x, axis=1)

  def _check_split(
    self, case: str, to_front: Callable[[jax.Array], jax.Array], axis: int
  ) -> None:
    """Half of the windows, whole, and each part of them as its own window.

    To keep the shape, what is left of the axis and the other windows are
    filled up with targets of weight 0.
    """
    model, variables, batch = _example(case)
    half = batch.targets.label.shape[0] // 2
    index = [slice(None)] * 3
    index[axis] = slice(1, None)
    rest = tuple(index)

    def split(x: jax.Array) -> jax.Array:
      """Parts to windows; the axis then repeats its only part."""
      parts = to_front(x[:half])
      rows = parts.reshape(-1, *parts.shape[2:])
      return jnp.stack([rows, rows], axis=axis)

    repeat = lambda x: jnp.repeat(x[:half], 2, axis=0)
    targets = jax.tree.map(split, batch.targets)
    weight = targets.weight.at[rest].set(0.0)
    end = repeat(batch.end)
    if axis == 1:
      end = jnp.stack([batch.end[:half].ravel()] * 2, axis=1)
    rows = types.Batch(
      history=jax.tree.map(repeat, batch.history),
      end=end,
      targets=targets.replace(weight=weight),
    )
    weight = batch.targets.weight.at[half:].set(0.0)
    whole = batch.replace(targets=batch.targets.replace(weight=weight))
    expected = examples.measure(model, variables, whole)
    measured = examples.measure(model, variables, rows)
    # The batch statistics are over the same rows.
    _check_same(measured, expected)
    for given, wanted in (
      (measured.output.logits, expected.output.logits),
      (
        examples.predict(model, variables, rows),
        examples.predict(model, variables, whole),
      ),
    ):
      chex.assert_trees_all_close(
        jnp.take(given, 0, axis=axis),
        jnp.take(split(wanted), 0, axis=axis),
        **_CLOSE,
      )

  @_ALL
  def test_targets_of_weight_zero_are_not_there(self, case):
    model, variables, batch = _example(case)
    weight = batch.targets.weight.at[:, :, 1].set(0.0)
    ids = {f: v.at[:, :, 1].set(0) for f, v in batch.targets.ids.items()}
    light = batch.targets.replace(weight=weight)
    blank = light.replace(ids=ids, label=light.label.at[:, :, 1].set(1.0))
    expected = examples.measure(model, variables, batch.replace(targets=light))
    measured = examples.measure(model, variables, batch.replace(targets=blank))
    _check_same(measured, expected)
    # Nor do they count in a mean: the mean over the others alone.
    label = np.asarray(batch.targets.label[:, :, 0])
    outputs = (expected.output.logits, expected.output.aux_logits)
    logits = np.stack([values for values in outputs if values is not None])
    signed = np.where(label > 0.5, 1.0, -1.0) * logits[..., 0]
    entropy = np.log1p(np.exp(-signed.astype(np.float64)))
    np.testing.assert_allclose(
      expected.loss, entropy.mean(axis=(1, 2)).sum(), rtol=1e-5
    )

  # The search.

  @_ALL
  def test_keeping_all_equals_no_search(self, case):
    model, variables, batch = _example(case, top_k=examples.LENGTH)
    if search.SEARCHES[model.config.search].learns_by_aux:
      self.skipTest('its auxiliary head has scores of its own')
    everything = examples.build(**(_CASES[case] | {'search': 'all'}))
    if _search(model).learns_by_aux:
      # Its auxiliary head pools by the search's own scores.
      chex.assert_trees_all_close(
        examples.predict(model, variables, batch),
        examples.predict(everything, variables, batch),
        **_CLOSE,
      )
      return
    _check_same(
      examples.measure(model, variables, batch),
      examples.measure(everything, variables, batch),
    )

  @_ALL
  def test_search_keeps_only_visible_behaviors_each_once(self, case):
    model, variables, batch = _example(case)
    found = model.apply(variables, batch).search
    visible = np.asarray(batch.history.mask)[:, None] & (
      np.arange(examples.LENGTH) < np.asarray(batch.end)[..., None]
    )
    for where in np.ndindex(*found.mask.shape[:3]):
      kept = np.asarray(found.indices[where])[np.asarray(found.mask[where])]
      assert len(set(kept.tolist())) == len(kept)
      assert visible[where[:2]][kept].all()
      want = min(visible[where[:2]].sum(), found.mask.shape[-1])
      assert len(kept) == want

  @_ALL
  def test_representation_never_moves_the_choice(self, case):
    model, variables, batch = _example(case)
    searching = _attention_tables(model)
    changed = jax.tree_util.tree_map_with_path(
      lambda path, x: x if _suffix(path) in searching else 1.0 - 3.0 * x,
      variables['tables'],
    )
    found = model.apply(variables, batch).search
    after = model.apply({**variables, 'tables': changed}, batch).search
    chex.assert_trees_all_equal(found, after)

  @_ALL
  def test_attention_learns_through_the_weights_alone(self, case):
    model, variables, batch = _example(case)
    if not _is_decoupled(model):
      self.skipTest('its attention tables also represent')
    # A single visible behavior has weight 1 whatever its score.
    first = jnp.argmax(batch.history.mask, axis=1).astype(jnp.int32)
    single = batch.replace(
      end=jnp.broadcast_to(first[:, None] + 1, batch.end.shape)
    )
    grads = examples.measure(model, variables, single).grads
    learned = _measured(case).grads
    searching = _attention_tables(model)
    for (name, grad), (_, other) in zip(
      _tables(grads), _tables(learned), strict=True
    ):
      if name.split('_', 1)[1] in searching:
        assert not np.any(grad), name
      else:
        assert np.any(grad), name
      assert np.any(other), name

  # Ways to run.

  @_EACH_CHOICE
  def test_jit_equals_no_jit(self, case):
    model, variables, batch = _example(case)

    def run(variables: Any, batch: types.Batch) -> Any:
      trained = model.apply(
        variables, batch, train=True, mutable=['batch_stats']
      )
      return model.apply(variables, batch), trained

    chex.assert_trees_all_close(
      jax.jit(run)(variables, batch), run(variables, batch), **_CLOSE
    )

  @_ALL
  def test_runs_on_a_compact_table(self, case):
    model, variables, batch = _example(case)
    rows = {f: sorted({0} | _used(batch, f)) for f in examples.VOCAB}
    assert all(len(rows[f]) < examples.VOCAB[f] for f in ('item',))

    def compact(path: Any, table: jax.Array) -> jax.Array:
      field = path[-1].key.split('_')[0]
      return table[jnp.array(rows[field])] if field in rows else table

    def remap(ids: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
      return {
        f: jnp.searchsorted(jnp.array(rows[f]), v) for f, v in ids.items()
      }

    small = batch.replace(
      history=batch.history.replace(ids=remap(batch.history.ids)),
      targets=batch.targets.replace(ids=remap(batch.targets.ids)),
    )
    select = lambda tree: jax.tree_util.tree_map_with_path(compact, tree)
    tables = select(variables['tables'])
    expected = _measured(case)
    measured = examples.measure(model, {**variables, 'tables': tables}, small)
    chex.assert_trees_all_equal(measured.loss, expected.loss)
    chex.assert_trees_all_close(
      measured.grads['tables'], select(expected.grads['tables']), **_CLOSE
    )
    chex.assert_trees_all_close(
      measured.grads['params'], expected.grads['params'], **_CLOSE
    )

  @_EACH_CHOICE
  def test_gradients_agree_with_finite_differences(self, case):
    model, variables, batch = _example(case)
    with jax.enable_x64(True):
      variables, batch = examples.to_float64((variables, batch))
      grads = examples.measure(model, variables, batch).grads
      trained = {name: variables[name] for name in grads}
      rng = np.random.default_rng(1)
      direction = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape)), trained
      )

      def loss(size: float) -> float:
        moved = jax.tree.map(lambda x, d: x + size * d, trained, direction)
        output, _ = model.apply(
          {**variables, **moved}, batch, train=True, mutable=['batch_stats']
        )
        return float(examples.loss(output, batch.targets))

      step = 1e-6
      slope = (loss(step) - loss(-step)) / (2 * step)
      products = jax.tree.map(
        lambda g, d: float(jnp.sum(g * d)), grads, direction
      )
    # The second-order rest is 1e-12 times a third derivative.
    np.testing.assert_allclose(
      sum(jax.tree.leaves(products)), slope, rtol=1e-6, atol=1e-8
    )

  @_EACH_CHOICE
  def test_bfloat16_tables(self, case):
    # All kept: a choice between near-equals may well change.
    model, variables, batch = _example(case, top_k=examples.LENGTH)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables['tables'])
    rounded = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    logits = examples.predict(model, {**variables, 'tables': half}, batch)
    exact = examples.predict(model, {**variables, 'tables': rounded}, batch)
    # 8 bits: 2^-8 an operation, some ten of them in a row, values near 1.
    np.testing.assert_allclose(
      np.asarray(logits, np.float32), exact, rtol=0.0, atol=10 * 2.0**-8
    )

  @_EACH_CHOICE
  def test_bfloat16_compute(self, case):
    # All kept: a choice between near-equals may well change.
    model, variables, batch = _example(case, top_k=examples.LENGTH)
    config = dataclasses.replace(model.config, compute_dtype='bfloat16')
    narrow = {
      **variables,
      'params': layers.narrow(variables['params'], 'bfloat16'),
    }
    output = models.Ranker(config).apply(narrow, batch)
    chex.assert_type([output.logits, output.search.scores], jnp.float32)
    exact = examples.predict(model, variables, batch)
    # As above; 0.019 is the most seen. No difference: nothing was narrow.
    np.testing.assert_allclose(
      output.logits, exact, rtol=0.0, atol=10 * 2.0**-8
    )
    assert np.abs(output.logits - exact).max() > 2.0**-10


class EquivalenceTest(parameterized.TestCase):
  """One model equals another where their tables say so."""

  def setUp(self):
    super().setUp()
    self.batch = examples.make_batch()
    self.twin = examples.build('twin')
    self.twin_variables = examples.make_variables(self.twin, self.batch)

  def _copied(self, plan: str, source: Mapping[str, str]) -> Any:
    """TWIN's or DARE's tables under another plan's names."""
    dare = examples.build('dare')
    tables = {
      'shared': self.twin_variables,
      'dare': examples.make_variables(dare, self.batch, seed=5),
    }
    origin = 'shared' if 'shared' in source.values() else 'dare'
    given = tables[origin]
    encoder = {
      f'{field}_{suffix}': given['tables']['encoder'][f'{field}_{old}']
      for field in ('item', 'category', 'time')
      for suffix, old in source.items()
    }
    model = self.twin if origin == 'shared' else dare
    copy = {**given, 'tables': {'encoder': encoder}}
    return model, given, examples.build('dare', plan=plan), copy

  @parameterized.named_parameters(
    {
      'testcase_name': 'dare_is_twin',
      'plan': 'decoupled',
      'source': {'attention': 'shared', 'representation': 'shared'},
    },
    {
      'testcase_name': 'three_is_dare',
      'plan': 'three',
      'source': {
        'attention_target': 'attention',
        'attention_behavior': 'attention',
        'representation': 'representation',
      },
    },
    {
      'testcase_name': 'four_is_dare',
      'plan': 'four',
      'source': {
        'attention_target': 'attention',
        'attention_behavior': 'attention',
        'representation_target': 'representation',
        'representation_behavior': 'representation',
      },
    },
    {
      'testcase_name': 'four_is_twin',
      'plan': 'four',
      'source': {
        'attention_target': 'shared',
        'attention_behavior': 'shared',
        'representation_target': 'shared',
        'representation_behavior': 'shared',
      },
    },
  )
  def test_equal_tables(self, plan, source):
    model, given, copied_model, copy = self._copied(plan, source)
    expected = examples.measure(model, given, self.batch)
    measured = examples.measure(copied_model, copy, self.batch)
    chex.assert_trees_all_equal(measured.output, expected.output)
    chex.assert_trees_all_equal(measured.loss, expected.loss)
    chex.assert_trees_all_equal(measured.batch_stats, expected.batch_stats)
    # The gradient of a table is the sum over those that copy it.
    grads = measured.grads['tables']['encoder']
    for name, grad in expected.grads['tables']['encoder'].items():
      field, suffix = name.split('_', 1)
      total = sum(
        grads[f'{field}_{new}'] for new, old in source.items() if old == suffix
      )
      chex.assert_trees_all_close(total, grad, **_CLOSE)

  @parameterized.named_parameters(
    *(
      (name, name)
      for name, plan in embeddings.PLANS.items()
      if plan.projection and plan.by_role and not plan.projection.hidden
    )
  )
  def test_identity_projections_are_twin(self, plan):
    projected = examples.build('twin', plan=plan)
    maps = examples.make_variables(projected, self.batch)['params']['encoder']
    maps = jax.tree.map(
      lambda x: jnp.eye(*x.shape) if x.ndim == 2 else jnp.zeros_like(x), maps
    )
    params = {**self.twin_variables['params'], 'encoder': maps}
    measured = examples.measure(
      projected, {**self.twin_variables, 'params': params}, self.batch
    )
    expected = examples.measure(self.twin, self.twin_variables, self.batch)
    # A product with the identity is exact; a matmul may still use fewer bits.
    for part in ('logits', 'aux_logits'):
      chex.assert_trees_all_close(
        getattr(measured.output, part),
        getattr(expected.output, part),
        **_CLOSE,
      )
    chex.assert_trees_all_close(
      measured.grads['tables'], expected.grads['tables'], **_CLOSE
    )

  def test_two_equal_tables_with_the_summed_gradient_train_as_twin(self):
    dare = examples.build('dare')
    optimizer = optax.adam(0.01)

    def double(tables: Any) -> Any:
      return {
        f'{name.removesuffix("shared")}{role}': table
        for name, table in tables.items()
        for role in ('attention', 'representation')
      }

    def add_up(grads: Any) -> Any:
      sums = {
        name.removesuffix('_attention'): grad
        + grads[name.replace('_attention', '_representation')]
        for name, grad in grads.items()
        if name.endswith('_attention')
      }
      return {name: sums[name.rsplit('_', 1)[0]] for name in grads}

    def train(model: Any, variables: Any, batches: Any, both: bool) -> Any:
      @jax.jit
      def step(trained: Any, state: Any, batch: Any) -> Any:
        grads = examples.measure(model, {**variables, **trained}, batch).grads
        if both:
          grads['tables'] = {'encoder': add_up(grads['tables']['encoder'])}
        updates, state = optimizer.update(grads, state, trained)
        return optax.apply_updates(trained, updates), state

      trained = {name: variables[name] for name in ('params', 'tables')}
      state = optimizer.init(trained)
      for batch in batches:
        trained, state = step(trained, state, batch)
      return trained

    with jax.enable_x64(True):
      variables = examples.to_float64(self.twin_variables)
      batches = [examples.to_float64(examples.make_batch(i)) for i in range(5)]
      expected = train(self.twin, variables, batches, both=False)
      encoder = double(variables['tables']['encoder'])
      start = {**variables, 'tables': {'encoder': encoder}}
      found = train(dare, start, batches, both=True)
      chex.assert_trees_all_close(
        found['params'], expected['params'], rtol=1e-6, atol=1e-6
      )
      chex.assert_trees_all_close(
        found['tables']['encoder'],
        double(expected['tables']['encoder']),
        rtol=1e-6,
        atol=1e-6,
      )

  def test_a_constant_on_all_scores_changes_nothing(self):
    # Equal steps of every time row along the target's add one constant.
    dare = examples.build('dare')
    variables = examples.make_variables(dare, self.batch)
    table = variables['tables']['encoder']['time_attention']
    moved = table.at[1:].add(0.7 * table[0])
    encoder = {**variables['tables']['encoder'], 'time_attention': moved}
    changed = {**variables, 'tables': {'encoder': encoder}}
    before = dare.apply(variables, self.batch)
    after = dare.apply(changed, self.batch)
    constant = 0.7 * float(table[0] @ table[0]) / np.sqrt(table.shape[1])
    mask = before.search.mask
    chex.assert_trees_all_equal(
      jnp.where(mask, after.search.indices, 0),
      jnp.where(mask, before.search.indices, 0),
    )
    chex.assert_trees_all_close(
      jnp.where(mask, after.search.scores, constant),
      jnp.where(mask, before.search.scores + constant, constant),
      **_CLOSE,
    )
    chex.assert_trees_all_close(after.logits, before.logits, **_CLOSE)


def _search(model: models.Ranker) -> Any:
  return search.SEARCHES[model.config.search]


def _tables(grads: Any) -> list[tuple[str, np.ndarray]]:
  return [
    (name, np.asarray(grad))
    for name, grad in grads['tables']['encoder'].items()
  ]


def _suffix(path: Any) -> str:
  return path[-1].key.split('_', 1)[1]


def _attention_tables(model: models.Ranker) -> set[str]:
  table_of = embeddings.PLANS[model.config.plan].table_of
  return {name for (role, _), name in table_of.items() if role == 'attention'}


def _is_decoupled(model: models.Ranker) -> bool:
  table_of = embeddings.PLANS[model.config.plan].table_of
  represented = {
    name for (role, _), name in table_of.items() if role != 'attention'
  }
  return not represented & _attention_tables(model)


def _used(batch: types.Batch, field: str) -> set[int]:
  """Ids of targets and real behaviors."""
  ids = np.asarray(batch.history.ids[field])[np.asarray(batch.history.mask)]
  targets = np.asarray(batch.targets.ids[field])
  return set(ids.tolist()) | set(targets.ravel().tolist())


def _used_times(model: models.Ranker, batch: types.Batch) -> set[int]:
  index = np.arange(examples.LENGTH)
  distance = np.asarray(batch.end)[..., None] - index
  real = np.asarray(batch.history.mask)[:, None, :] & (distance > 0)
  ids = embeddings.position_ids(examples.LENGTH, model.config.exact_positions)
  return {0} | set(ids[distance[real]].tolist())


if __name__ == '__main__':
  absltest.main()
