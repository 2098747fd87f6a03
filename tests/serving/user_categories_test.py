"""States that hold categories by number: equal to those that hold keys."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax.serving import categories
from dare_jax.serving import ranking
from dare_jax.serving import user_state
from tests.models import examples

_USERS, _LENGTH, _ITEM, _CATEGORY, _K = 3, 144, 5, 4, 4
_COUNT = 7
_search = jax.jit(user_state.search, static_argnames='k')
_build = jax.jit(
  user_state.build, static_argnames=('precision', 'num_categories')
)
_append = jax.jit(user_state.append, donate_argnums=0)


def _draw(seed, candidates, length):
  """Keys without categories, categories, their keys, query and bias."""
  rng = np.random.default_rng(seed)
  # Few distinct keys and positions: many ties that recency must break.
  few = rng.normal(size=(3, _ITEM)).astype(np.float32)
  keys = few[rng.integers(0, 3, (_USERS, length))]
  category = rng.integers(0, _COUNT, (_USERS, length)).astype(np.int32)
  table = rng.normal(size=(_COUNT, _CATEGORY)).astype(np.float32)
  width = _ITEM + _CATEGORY
  query = rng.normal(size=(_USERS, candidates, width)).astype(np.float32)
  bias = np.repeat(rng.normal(size=21), 7)[: _LENGTH + 1].astype(np.float32)
  return keys, category, table, query, bias


def _check_equal(found, expected):
  mask = np.asarray(expected.mask)
  np.testing.assert_array_equal(found.mask, mask)
  for field in ('indices', 'distance'):
    np.testing.assert_array_equal(
      np.asarray(getattr(found, field))[mask],
      np.asarray(getattr(expected, field))[mask],
    )
  np.testing.assert_allclose(
    np.asarray(found.scores)[mask],
    np.asarray(expected.scores)[mask],
    rtol=1e-5,
    atol=1e-5,
  )


# Of every twelve cases of a precision, those of three candidates.
_OF_THREE = [str(12 * p + n) for p in range(3) for n in range(4, 8)]


class UserCategoriesTest(parameterized.TestCase):
  @parameterized.product(
    precision=user_state.PRECISIONS,
    candidates=[1, 3, 9],
    appended=[0, 160],
    k=[4, 5],
  )
  @pytest.mark.quick_cases(*_OF_THREE)
  def test_equal_to_whole_keys(self, precision, candidates, appended, k):
    keys, category, table, query, bias = _draw(
      appended, candidates, _LENGTH + appended
    )
    category[0, ::5] = _COUNT + 90  # As `take` does, scored as the last.
    whole = np.concatenate([keys, np.take(table, category, 0, mode='clip')], -1)
    counts = [0, 3, _LENGTH]
    mask = np.arange(_LENGTH) >= _LENGTH - np.array(counts)[:, None]
    first = slice(0, _LENGTH)
    apart = _build(
      keys[:, first],
      mask,
      precision=precision,
      category=category[:, first],
      num_categories=_COUNT,
    )
    plain = _build(whole[:, first], mask, precision=precision)
    for i in range(_LENGTH, _LENGTH + appended):
      apart = _append(apart, keys[:, i], category[:, i])
      plain = _append(plain, whole[:, i])
    _check_equal(
      _search(apart, query, bias, k=k, category_keys=table),
      # Whose scores of equals are equal to the last bit, as those are.
      _search(plain, query, bias, k=k),
    )

  def test_the_rule_weighs_look_ups_against_reading(self):
    rule = categories.suit
    assert rule(300, 8, 10_000)
    assert not rule(300, 4, 10_000)
    assert not rule(300, 8, 10_000, precision='int8')
    assert rule(300, 16, 10_000, candidates=8)
    assert not rule(300, 16, 10_000, candidates=9)
    assert not rule(401, 16, 200)

  @parameterized.parameters(
    (7, np.uint8), (256, np.uint8), (257, np.uint16), (70_000, np.int32)
  )
  def test_categories_take_few_bytes(self, count, kind):
    keys, category, *_ = _draw(1, 1, _LENGTH)
    category[0, :3] = [-1, count - 1, count + 500]
    mask = np.ones((_USERS, _LENGTH), bool)
    state = _build(keys, mask, category=category, num_categories=count)
    assert state.category.dtype == kind
    state = _append(state, keys[:, 0], np.full(_USERS, count + 600))
    held = np.minimum(np.asarray(state.category), count - 1)
    assert held[0, 1:3].tolist() == [count - 1] * 2
    assert held[:, 0].tolist() == [count - 1] * _USERS

  def test_narrow_keys_leave_category_scores_as_they_are(self):
    keys, category, table, query, _ = _draw(2, 1, _LENGTH)
    mask = np.ones((_USERS, _LENGTH), bool)
    state = _build(0 * keys, mask, precision='int8', category=category)
    scores = jax.jit(ranking.content_scores)(state, query, table)
    expected = np.einsum('bce,ble->bcl', query[..., _ITEM:], table[category])
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)

  def test_categories_for_some_calls_only_are_refused(self):
    keys, category, table, query, bias = _draw(2, 1, _LENGTH)
    mask = np.ones((_USERS, _LENGTH), bool)
    plain = _build(keys, mask)
    with self.assertRaisesRegex(ValueError, 'holds no categories'):
      _append(plain, keys[:, 0], category[:, 0])
    apart = _build(keys, mask, category=category)
    with self.assertRaisesRegex(ValueError, 'holds the categories'):
      _search(apart, query, bias, k=_K)


_PLANS = [(plan, plan) for plan in embeddings.PLANS]


class RankerTest(parameterized.TestCase):
  @parameterized.named_parameters(*_PLANS)
  @pytest.mark.quick_cases('shared', 'decoupled', 'projected_concat')
  def test_equals_the_ranker_s_search(self, plan):
    self._check(plan, use_time=True)

  @parameterized.named_parameters(*_PLANS)
  @pytest.mark.slow
  def test_equals_the_ranker_s_search_without_time(self, plan):
    self._check(plan, use_time=False)

  def _check(self, plan, use_time):
    vocab = examples.VOCAB | {'brand': 5}
    model = examples.build(
      'dare', plan=plan, use_time=use_time, top_k=5, vocab_sizes=vocab
    )
    batch = examples.make_batch(
      moments=1, candidates=3, length=_LENGTH, vocab=vocab
    )
    batch = batch.replace(end=np.full_like(batch.end, _LENGTH), start=None)
    variables = examples.make_variables(model, batch)
    call = functools.partial(examples.call, model, variables)
    history, ids = batch.history, batch.targets.ids
    if use_time and plan.startswith('projected_concat'):
      with self.assertRaisesRegex(ValueError, 'mixes time and content'):
        call('encode_categories')
      return
    keys = call('encode_history', history)
    expected = call('search', keys, batch)
    apart = call('encode_history', history, True)
    table = call('encode_categories')
    assert apart.shape[-1] + 3 == keys.shape[-1]
    assert len(table) == vocab['category']
    category = history.ids['category']
    state = _build(
      apart, history.mask, category=category, num_categories=len(table)
    )
    query, bias = call('encode_targets', ids, _LENGTH, True)
    query = np.asarray(query)[:, 0]
    found = _search(state, query, bias, k=5, category_keys=table)
    _check_equal(found, expected)


if __name__ == '__main__':
  absltest.main()
