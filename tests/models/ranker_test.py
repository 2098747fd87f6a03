"""The ranker against the reference, and its parts against each other."""

from __future__ import annotations

import functools
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax import types
from tests.models import examples
from tests.models import reference

# Field widths all differ where the plan leaves them free.
_UNEQUAL = {
  'attention_dim': 3,
  'attention_dims': {'category': 2, 'time': 5},
  'representation_dim': 4,
  'representation_dims': {'category': 3, 'time': 2},
}
_EQUAL = {
  'attention_dim': 3,
  'attention_dims': {'category': 2, 'time': 5},
  'representation_dim': 3,
  'representation_dims': {'category': 2, 'time': 5},
}
_PLAIN = {'target_aware': False}
_FIELDS = examples.VOCAB | {'brand': 5, 'shop': 7}
_CONTEXT = {'user': 8, 'hour': 4}

_CASES = (
  {'testcase_name': 'decoupled', 'plan': 'decoupled', 'options': _UNEQUAL},
  {'testcase_name': 'shared', 'plan': 'shared', 'options': _EQUAL},
  {'testcase_name': 'three', 'plan': 'three', 'options': _UNEQUAL},
  {'testcase_name': 'four', 'plan': 'four', 'options': _UNEQUAL},
  *(
    {'testcase_name': plan, 'plan': plan, 'options': _EQUAL}
    for plan in embeddings.PLANS
    if plan.startswith('projected')
  ),
  *(
    {
      'testcase_name': f'{method}_search',
      'plan': 'decoupled',
      'options': _UNEQUAL | {'search': method},
    }
    for method in ('category', 'simhash', 'projected', 'clusters')
  ),
  {
    'testcase_name': 'clusters',
    'plan': 'decoupled',
    'options': _UNEQUAL | {'search': 'clusters', 'num_clusters': 3},
    'num_clusters': 3,
  },
  {
    'testcase_name': 'without_auxiliary_head',
    'plan': 'shared',
    'options': _EQUAL | {'aux_head': False, 'only_product': True},
  },
  {
    'testcase_name': 'network',
    'plan': 'decoupled',
    'options': _UNEQUAL | {'scorer': 'network'},
  },
  {
    'testcase_name': 'without_time',
    'plan': 'four',
    'options': _UNEQUAL | {'use_time': False, 'scorer': 'network'},
  },
  {
    'testcase_name': 'published_hard_search',
    'plan': 'shared',
    'options': _EQUAL
    | {'search': 'category', 'scorer': 'dot_time_twice', 'only_product': True},
  },
  {
    'testcase_name': 'buckets',
    'plan': 'decoupled',
    'options': _UNEQUAL
    | {'search': 'all', 'aggregation': 'buckets', 'hash_bits': 12},
  },
  {
    'testcase_name': 'buckets_of_the_kept',
    'plan': 'shared',
    'options': _EQUAL
    | {'search': 'simhash', 'aggregation': 'buckets', 'hash_bits': 12},
  },
  {
    'testcase_name': 'one_moment_one_candidate',
    'plan': 'decoupled',
    'options': {},
    'batch': {'windows': 5, 'length': 9, 'moments': 1, 'candidates': 1},
  },
  {
    'testcase_name': 'further_fields_and_context',
    'plan': 'decoupled',
    'options': {
      'vocab_sizes': _FIELDS,
      'attention_dims': {'brand': 2, 'shop': 1},
      'context': _CONTEXT,
      'context_dim': 2,
    },
    'batch': {
      'windows': 2,
      'moments': 3,
      'candidates': 4,
      'vocab': _FIELDS,
      'context': _CONTEXT,
    },
  },
  {
    'testcase_name': 'not_target_aware',
    'plan': 'three',
    'options': {'target_aware': False},
  },
  {
    'testcase_name': 'no_search',
    'plan': 'decoupled',
    'options': {'search': 'all'},
  },
  {
    'testcase_name': 'one_kept_one_exact_position',
    'plan': 'four',
    'options': {'top_k': 1, 'exact_positions': 1},
  },
)

_MIXED = [
  {
    'testcase_name': f'{method}_{plan}_{use_time}',
    'plan': plan,
    'options': {
      'search': method,
      'aggregation': aggregation,
      'hash_bits': 12,
      'use_time': use_time,
      'attention_dims': {'time': 2},
      'representation_dims': {'time': 2},
    },
  }
  for method, aggregation in (
    ('simhash', 'softmax'),
    ('projected', 'softmax'),
    ('all', 'buckets'),
  )
  for plan in ('projected_concat', 'projected_concat_tied_by_role')
  for use_time in (True, False)
]


def _example(
  plan: str, options: Any, batch: Any = None, num_clusters: int = 0
) -> Any:
  model = examples.build('dare', plan=plan, **options)
  data = examples.make_batch(3, **(batch or {}))
  if num_clusters:
    data = examples.with_clusters(data, num_clusters)
  # One moment sees nothing, one target is padding.
  weight = data.targets.weight.at[-1, -1, -1].set(0.0)
  end = data.end
  if end.size > 1:
    end = end.at[0, 0].set(0)
  targets = data.targets.replace(weight=weight)
  data = data.replace(targets=targets, end=end)
  return model, examples.make_variables(model, data), data


def _outputs(model: Any) -> Any:
  """Returns one program of both modes: what they share is compiled once."""

  @jax.jit
  def run(variables: Any, batch: types.Batch) -> Any:
    train = model.apply(variables, batch, train=True, mutable=['batch_stats'])
    return train, examples.evaluate(model, variables, batch)

  return run


def _check(model: Any, variables: Any, batch: Any, rtol: float) -> None:
  close = functools.partial(chex.assert_trees_all_close, rtol=rtol, atol=rtol)
  expected = reference.rank(model, variables, batch, train=True)
  (output, updated), evaluated = _outputs(model)(variables, batch)
  chex.assert_tree_all_finite(output.logits)
  # Normalisation does not read what stands for no target.
  told = np.asarray(batch.targets.weight) > 0
  close(output.logits[told], expected.logits[told])
  assert (output.aux_logits is None) == (not model.config.aux_head)
  if output.aux_logits is not None:
    close(output.aux_logits[told], expected.aux_logits[told])
  close(updated['batch_stats'], expected.batch_stats)
  _check_search(output.search, expected, rtol)

  expected = reference.rank(model, variables, batch, train=False)
  output = evaluated.output
  chex.assert_tree_all_finite(output.logits)
  close(output.logits, expected.logits)
  assert output.aux_logits is None
  chex.assert_trees_all_equal(evaluated.batch_stats, variables['batch_stats'])
  _check_search(output.search, expected, rtol)
  close(evaluated.interest, expected.interest)


def _check_search(
  found: types.SearchResult, expected: reference.Output, rtol: float
) -> None:
  indices, mask = np.asarray(found.indices), np.asarray(found.mask)
  for where in np.ndindex(*indices.shape[:3]):
    b, m, c = where
    kept = expected.kept[b][m][c]
    ours = indices[where][mask[where]]
    # Searching all keeps the history's order, not the scores'.
    np.testing.assert_array_equal(np.sort(ours), np.sort(kept))
    np.testing.assert_allclose(
      np.asarray(found.scores)[where][mask[where]],
      expected.scores[where][ours],
      rtol=rtol,
      atol=rtol,
    )


class ReferenceTest(parameterized.TestCase):
  @parameterized.named_parameters(*_CASES)
  @pytest.mark.quick_cases(
    *('decoupled', 'shared', 'projected_concat', 'category_search'),
    *('clusters', 'network', 'buckets', 'further_fields_and_context'),
  )
  def test_float32(self, plan, options, batch=None, num_clusters=0):
    # Batch normalisation multiplies the rounding of a feature that hardly
    # varies by up to 1 / sqrt(1e-5) = 316; 2^-24 times that is 2e-5.
    _check(*_example(plan, options, batch, num_clusters), rtol=1e-4)

  @parameterized.named_parameters(*_MIXED)
  @pytest.mark.slow
  def test_float32_where_time_is_mixed(self, plan, options):
    _check(*_example(plan, options), rtol=1e-4)

  @parameterized.named_parameters(*((plan, plan) for plan in embeddings.PLANS))
  @pytest.mark.slow
  def test_float64(self, plan):
    model, variables, data = _example(plan, {})
    with jax.enable_x64(True):
      _check(model, *examples.to_float64((variables, data)), rtol=1e-10)


class PartsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.model, self.variables, self.batch = _example('decoupled', {})

  def test_search_then_score_equals_the_call(self):
    batch, variables = self.batch, self.variables
    call = functools.partial(examples.call, self.model, variables)
    keys = call('encode_history', batch.history)
    result = call('search', keys, batch)
    logits = call('score', batch, result)
    whole = examples.evaluate(self.model, variables, batch).output
    chex.assert_trees_all_equal(result, whole.search)
    chex.assert_trees_all_equal(logits, whole.logits)

  def test_gathering_the_kept_equals_masking_the_rest(self):
    model, batch, variables = self.model, self.batch, self.variables
    full = examples.build('dare', search='all')
    found = examples.evaluate(model, variables, batch).output.search
    everything = examples.evaluate(full, variables, batch).output.search
    kept = jax.nn.one_hot(found.indices, examples.LENGTH, dtype=bool)
    kept = jnp.any(kept & found.mask[..., None], axis=-2)
    masked = everything.replace(mask=kept)

    def score(method_model: Any, result: Any) -> Any:
      """Returns the logits, and the gradient of their sum."""

      @jax.jit
      def run(tables: Any) -> Any:
        logits, gradient = jax.vjp(
          lambda t: method_model.apply(
            {**variables, 'tables': t}, batch, result, method='score'
          ),
          tables,
        )
        return logits, gradient(jnp.ones_like(logits))

      return run(variables['tables'])

    # The same terms, summed in another order.
    chex.assert_trees_all_close(
      score(model, found), score(full, masked), rtol=1e-5, atol=1e-6
    )

  def test_auxiliary_head_is_optional_and_changes_no_prediction(self):
    without = examples.build('dare', aux_head=False)
    _, output = examples.outputs(without, self.variables, self.batch)
    assert output.aux_logits is None
    _, both = examples.outputs(self.model, self.variables, self.batch)
    chex.assert_trees_all_equal(output.logits, both.logits)

  # Fields are 3 wide: a vector is item | category | time, 9, without time 6.
  @parameterized.named_parameters(
    ('target_aware', {}, 3 * 9),
    ('plain', _PLAIN, 2 * 9),
    ('only_product', {'only_product': True}, 9),
    ('only_product_and_nothing_else', {'only_product': True} | _PLAIN, 9),
    ('without_time', {'use_time': False}, 3 * 6),
    ('din', {'name': 'din'} | _PLAIN, 2 * 6),
  )
  def test_width_of_the_head_s_input(self, options, width):
    model = examples.build(**options)
    variables = examples.make_variables(model, self.batch)
    inputs = jax.eval_shape(
      lambda *args: examples.head_inputs(model, *args, train=True),
      variables,
      self.batch,
    )
    assert inputs['head'].shape[-1] == inputs['aux'].shape[-1] == width

  def test_init_makes_every_collection(self):
    model = examples.build('dare', attention_init=0.3, representation_init=0.02)
    variables = examples.init(model, self.batch)
    assert set(variables) == {'params', 'tables', 'batch_stats'}
    for role, std in (('attention', 0.3), ('representation', 0.02)):
      table = variables['tables']['encoder'][f'item_{role}']
      assert table.shape == (examples.VOCAB['item'], 3)
      # 120 draws: within a fifth, three standard errors.
      np.testing.assert_allclose(table.std(), std, rtol=0.2)

  def test_top_k_beyond_the_history_is_refused(self):
    model = examples.build('dare', top_k=examples.LENGTH + 1)
    with self.assertRaisesRegex(ValueError, 'top_k=7.*history length, 6'):
      model.apply(self.variables, self.batch)


if __name__ == '__main__':
  absltest.main()
