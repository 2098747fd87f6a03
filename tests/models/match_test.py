"""Match terms: against the reference, and what makes them exact."""

from __future__ import annotations

from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import search as searches
from dare_jax.search import matching
from dare_jax.training import batch_rows
from tests.models import examples
from tests.models import reference_check

# So few ids that most targets match, some of them often; 1 is unknown.
_VOCAB = {'item': 6, 'category': 4, 'brand': 3}
_FIELDS = ('item', 'brand')
_count = jax.jit(matching.count)
_CASES = (
  ('dare', 'dare', {}),
  ('category_alone', 'dare', {'match_fields': ('category',)}),
  ('projected_concat', 'dare', {'plan': 'projected_concat'}),
  ('din', 'din', {}),
  ('twin_hard', 'twin_hard', {}),
  ('sim_soft', 'sim_soft', {}),
  ('eta', 'eta', {}),
  ('twin_v2', 'twin_v2', {'num_clusters': 3}),
  ('everything', 'din_full', {}),
  ('sdim', 'sdim', {'hash_bits': 12}),
  ('only_product', 'dare', {'only_product': True, 'use_time': False}),
)


def _example(name: str, **options: Any) -> Any:
  model = examples.build(
    name, **({'vocab_sizes': _VOCAB, 'match_fields': _FIELDS} | options)
  )
  batch = examples.make_batch(5, vocab=_VOCAB)
  if 'num_clusters' in options:
    batch = examples.with_clusters(batch, options['num_clusters'])
  # One moment sees nothing.
  batch = batch.replace(end=batch.end.at[0, 0].set(0))
  return model, examples.make_variables(model, batch), batch


class MatchTermsTest(parameterized.TestCase):
  @parameterized.named_parameters(*_CASES)
  @pytest.mark.quick_cases('dare', 'sdim', 'twin_v2')
  def test_equal_the_reference(self, name, options):
    example = _example(name, **options)
    found = reference_check.assert_equal(*example)
    reference_check.assert_same_kept(*found)

  @parameterized.named_parameters(
    case for case in _CASES if case[0] in ('dare', 'eta', 'twin_v2')
  )
  @pytest.mark.quick_cases('dare')
  def test_gradients_agree_with_the_reference_s_differences(
    self, name, options
  ):
    model, variables, batch = _example(name, **options)
    with jax.enable_x64(True):
      variables, batch = examples.to_float64((variables, batch))
      grads = examples.measure(model, variables, batch).grads
      found = grads['params']['matcher']['bias']
      for place in range(len(found)):
        slope = reference_check.slope(
          model, variables, batch, ('matcher', 'bias'), (place,)
        )
        np.testing.assert_allclose(found[place], slope, rtol=1e-5, atol=1e-8)

  def test_without_scores_there_is_no_bias(self):
    _, variables, _ = _example('sdim', hash_bits=12)
    assert 'matcher' not in variables['params']

  @pytest.mark.slow
  def test_a_few_windows_at_a_time_change_nothing(self):
    parts, whole = reference_check.assert_same_by_windows(*_example('dare'))
    chex.assert_trees_all_equal(
      parts.output.search.matches, whole.output.search.matches
    )

  def test_a_match_is_found_at_once(self):
    model = examples.build(match_fields=('item',), top_k=1, attention_init=0.1)
    batch = examples.make_batch(2)
    items = np.asarray(batch.history.ids['item'])
    assert (items[:, -1] > 1).all()
    ids = batch.targets.ids | {
      'item': np.broadcast_to(items[:, -1:, None], batch.targets.label.shape)
    }
    batch = batch.replace(
      targets=batch.targets.replace(ids=ids),
      end=np.full_like(batch.end, examples.LENGTH),
    )
    variables = examples.init(model, batch)
    found = examples.evaluate(model, variables, batch).output.search
    found = jax.device_get(found)
    same = np.take_along_axis(items[:, None, None], found.indices, axis=-1)
    assert (same[..., 0] == ids['item']).all()
    assert (found.matches['item'].distance == 1).all()

  def test_unknown_and_padding_match_nothing(self):
    model, variables, batch = _example('dare')
    for nothing in (0, 1):
      same = jax.tree.map(lambda x: np.full_like(x, nothing), batch)  # noqa: B023
      blank = batch.replace(
        history=batch.history.replace(ids=same.history.ids),
        targets=batch.targets.replace(ids=same.targets.ids),
      )
      output = examples.evaluate(model, variables, blank).output
      found = output.search.matches
      assert not any(np.asarray(x).any() for x in jax.tree.leaves(found))

  def test_ids_into_the_rows_of_a_batch_match_as_ids_do(self):
    """As in training: the unknown id is not 1 there."""
    vocab = {'item': 5000, 'category': 9}
    model = examples.build(vocab_sizes=vocab, match_fields=('item',))
    batch = jax.device_get(examples.make_batch(vocab=vocab))
    some = np.array([1, 4999, 2500], np.int32)
    pick = lambda x: np.where(x > 0, some[x % 3], 0)
    batch = batch.replace(
      history=batch.history.replace(
        ids=batch.history.ids | {'item': pick(batch.history.ids['item'])}
      ),
      targets=batch.targets.replace(
        ids=batch.targets.ids | {'item': pick(batch.targets.ids['item'])}
      ),
    )
    by_row = batch_rows.BatchRows({'item': 5000})(batch)
    batch, by_row = jax.device_put((batch, by_row))
    bound = model.bind({'params': {'matcher': {'bias': jnp.ones(1)}}})
    own = bound.encode_matches(batch.targets.ids).ids['item']
    moved = bound.matcher.of_targets(by_row.targets.ids, by_row.rows)
    moved = moved.ids['item']
    np.testing.assert_array_equal(own == -1, moved == -1)
    assert (own == -1).any() and (own > 0).any()
    np.testing.assert_array_equal(
      own[..., None] == batch.history.ids['item'][:, None, None],
      moved[..., None] == by_row.history.ids['item'][:, None, None],
    )

  @parameterized.parameters(
    (('brand',), "'brand'.*item"), (('item', 'item'), 'each field once')
  )
  def test_fields_that_are_not_there_are_refused(self, fields, message):
    with self.assertRaisesRegex(ValueError, message):
      examples.build(match_fields=fields)

  def test_every_search_is_tried(self):
    tried = {
      examples.build(n, **({'vocab_sizes': _VOCAB} | o)).config.search
      for _, n, o in _CASES
    }
    assert tried == set(searches.SEARCHES)


class CountTest(parameterized.TestCase):
  @parameterized.parameters(1, 7, 512, 700)
  def test_counts_what_a_loop_counts(self, length):
    rng = np.random.default_rng(length)
    ids = rng.integers(0, 5, (3, length)).astype(np.int32)
    targets = rng.integers(-1, 6, (3, 2, 9)).astype(np.int32)
    targets[targets == 0] = matching.NOTHING
    end = rng.integers(0, length + 1, (3, 2)).astype(np.int32)
    start = rng.integers(-2, length // 2 + 1, (3, 2)).astype(np.int32)
    found = _count(ids, targets, start, end)
    found = jax.tree.map(np.asarray, found)
    for b, m, c in np.ndindex(*targets.shape):
      seen = range(max(start[b, m], 0), end[b, m])
      same = [i for i in seen if ids[b, i] == targets[b, m, c]]
      expected = (len(same), end[b, m] - max(same) if same else 0)
      own = found.count[b, m, c], found.distance[b, m, c]
      assert tuple(map(int, own)) == expected


if __name__ == '__main__':
  absltest.main()
