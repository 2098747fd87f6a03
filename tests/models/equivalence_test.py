"""How every choice of a ranker may be run, and which models equal others."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dare_jax import embeddings
from dare_jax import layers
from dare_jax import models
from tests.models import conformance
from tests.models import examples

_CLOSE = conformance.CLOSE


@conformance.EACH_CHOICE
@pytest.mark.quick_cases('sdim')
def test_jit_equals_no_jit(case):
  model, variables, batch = conformance.example(case)
  measured = conformance.measured(case)
  evaluated = examples.evaluate(model, variables, batch)
  batch = jax.device_put(batch)  # As models take it outside `jit`.
  output, updated = model.apply(
    variables, batch, train=True, mutable=['batch_stats']
  )
  chex.assert_trees_all_close(
    (evaluated.output, measured.output, measured.batch_stats),
    (model.apply(variables, batch), output, updated['batch_stats']),
    **_CLOSE,
  )


@conformance.EACH_CHOICE
def test_compact_tables_and_longer_histories_change_nothing(case):
  """Both at once: `conformance_test` has each alone, at sizes as they are."""
  model, variables, batch = conformance.example(case)
  rows = conformance.rows_of(batch)
  assert len(rows['item']) < examples.VOCAB['item']
  tables = conformance.select(variables['tables'], rows)
  pad = lambda x: np.pad(x, ((0, 0), (2, 0)))
  history = batch.history.replace(
    ids=jax.tree.map(pad, batch.history.ids), mask=pad(batch.history.mask)
  )
  padded = batch.replace(history=history, end=batch.end + 2)
  measured = examples.measure(
    model, {**variables, 'tables': tables}, conformance.remap(padded, rows)
  )
  expected = conformance.measured(case)
  conformance.check_compact(measured, expected, rows)
  conformance.check_found(measured, expected, 2)
  chex.assert_trees_all_close(
    measured.batch_stats, expected.batch_stats, **_CLOSE
  )


@conformance.EACH_CHOICE
def test_keeping_all_equals_no_search(case):
  conformance.check_no_search(
    case, *conformance.example(case, top_k=examples.LENGTH)
  )


@conformance.EACH_CHOICE
def test_gradients_agree_with_finite_differences(case):
  model, variables, batch = conformance.example(case)
  with jax.enable_x64(True):
    variables, batch = examples.to_float64((variables, batch))
    grads = examples.measure(model, variables, batch).grads
    trained = jax.tree.map(
      np.asarray, {name: variables[name] for name in grads}
    )
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), trained)

    def loss(size: float) -> float:
      moved = jax.tree.map(lambda x, d: x + size * d, trained, direction)
      return float(examples.measure(model, {**variables, **moved}, batch).loss)

    step = 1e-6
    slope = (loss(step) - loss(-step)) / (2 * step)
    products = jax.tree.map(
      lambda g, d: float(np.sum(np.asarray(g) * d)), grads, direction
    )
  # The second-order rest is 1e-12 times a third derivative.
  np.testing.assert_allclose(
    sum(jax.tree.leaves(products)), slope, rtol=1e-6, atol=1e-8
  )


@conformance.EACH_CHOICE
def test_bfloat16_tables(case):
  # All kept: a choice between near-equals may well change.
  model, variables, batch = conformance.example(case, top_k=examples.LENGTH)
  tables = jax.device_get(variables['tables'])
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tables)
  rounded = jax.tree.map(lambda x: x.astype(np.float32), half)
  logits = examples.predict(model, {**variables, 'tables': half}, batch)
  exact = examples.predict(model, {**variables, 'tables': rounded}, batch)
  # 8 bits: 2^-8 an operation, some ten of them in a row, values near 1.
  np.testing.assert_allclose(
    np.asarray(logits, np.float32), exact, rtol=0.0, atol=10 * 2.0**-8
  )


@conformance.EACH_CHOICE
def test_bfloat16_compute(case):
  # All kept: a choice between near-equals may well change.
  model, variables, batch = conformance.example(case, top_k=examples.LENGTH)
  config = dataclasses.replace(model.config, compute_dtype='bfloat16')
  narrow = {
    **variables,
    'params': jax.jit(layers.narrow, static_argnums=1)(
      variables['params'], 'bfloat16'
    ),
  }
  output = examples.evaluate(models.Ranker(config), narrow, batch).output
  chex.assert_type([output.logits, output.search.scores], jnp.float32)
  exact = examples.predict(model, variables, batch)
  # As above; 0.019 is the most seen. No difference: nothing was narrow.
  np.testing.assert_allclose(output.logits, exact, rtol=0.0, atol=10 * 2.0**-8)
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
  @pytest.mark.quick_cases('dare_is_twin', 'three_is_dare')
  def test_equal_tables(self, plan, source):
    model, given, copied_model, copy = self._copied(plan, source)
    expected = examples.measure(model, given, self.batch)
    measured = examples.measure(copied_model, copy, self.batch)
    chex.assert_trees_all_equal(measured.output, expected.output)
    chex.assert_trees_all_equal(measured.loss, expected.loss)
    chex.assert_trees_all_equal(measured.batch_stats, expected.batch_stats)
    # The gradient of a table is the sum over those that copy it.
    grads = jax.device_get(measured.grads['tables']['encoder'])
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
  @pytest.mark.quick_cases('projected_concat')
  def test_identity_projections_are_twin(self, plan):
    projected = examples.build('twin', plan=plan)
    maps = examples.make_variables(projected, self.batch)['params']['encoder']
    maps = jax.tree.map(
      lambda x: (
        np.eye(*x.shape, dtype=x.dtype) if x.ndim == 2 else np.zeros_like(x)
      ),
      maps,
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
      state = jax.jit(optimizer.init)(trained)
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
    table = np.asarray(variables['tables']['encoder']['time_attention'])
    moved = np.concatenate([table[:1], table[1:] + np.float32(0.7) * table[0]])
    encoder = {**variables['tables']['encoder'], 'time_attention': moved}
    changed = {**variables, 'tables': {'encoder': encoder}}
    before, after = (
      jax.device_get(examples.evaluate(dare, own, self.batch).output)
      for own in (variables, changed)
    )
    constant = 0.7 * float(table[0] @ table[0]) / np.sqrt(table.shape[1])
    mask = before.search.mask
    chex.assert_trees_all_equal(
      np.where(mask, after.search.indices, 0),
      np.where(mask, before.search.indices, 0),
    )
    chex.assert_trees_all_close(
      np.where(mask, after.search.scores, constant),
      np.where(mask, before.search.scores + constant, constant),
      **_CLOSE,
    )
    chex.assert_trees_all_close(after.logits, before.logits, **_CLOSE)


if __name__ == '__main__':
  absltest.main()
