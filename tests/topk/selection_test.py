"""Exact top-k against sorting, with ties, masks and NaN."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dare_jax import search
from dare_jax.topk import selection
from tests.models import reference

_LENGTH = 7
_top_k = jax.jit(search.top_k, static_argnames='k')
_best_of = jax.jit(selection.best_of, static_argnames='k')


def _rows(elements: st.SearchStrategy) -> st.SearchStrategy:
  return st.lists(elements, min_size=_LENGTH, max_size=_LENGTH)


class TopKTest(parameterized.TestCase):
  @hypothesis.given(
    # Few values, so that most rows have ties.
    scores=_rows(st.sampled_from([-2.0, -0.0, 0.0, 1.5, 3e38, -3e38])),
    visible=_rows(st.booleans()),
    k=st.sampled_from([1, 3, _LENGTH]),
  )
  def test_equals_sorting_and_ties_go_to_the_most_recent(
    self, scores, visible, k
  ):
    index, mask = jax.device_get(
      _top_k(np.float32(scores), np.array(visible), k)
    )
    assert index.dtype == np.int32 and mask.dtype == bool
    candidates = {i: scores[i] for i in range(_LENGTH) if visible[i]}
    expected = reference.top_k(candidates, k)
    assert index[mask].tolist() == expected
    # The kept come first; the rest of the indices still point into the row.
    assert mask.tolist() == [i < len(expected) for i in range(k)]
    assert ((index >= 0) & (index < _LENGTH)).all()

  @parameterized.parameters((1, 1), (2, 1), (2, 3), (5, 2))
  @pytest.mark.quick_cases('0', '2')
  def test_leading_axes_and_a_mask_that_broadcasts(self, windows, moments):
    rng = np.random.default_rng(windows)
    scores = rng.normal(size=(windows, moments, 3, 9)).astype(np.float32)
    visible = rng.random((windows, moments, 1, 9)) < 0.5
    index, mask = jax.device_get(_top_k(scores, visible, 4))
    assert index.shape == mask.shape == (windows, moments, 3, 4)
    for where in np.ndindex(windows, moments, 3):
      row = visible[where[0], where[1], 0]
      candidates = {i: scores[where][i] for i in np.flatnonzero(row)}
      kept = index[where][mask[where]]
      assert kept.tolist() == reference.top_k(candidates, 4)

  @parameterized.parameters(3, 2000)
  @pytest.mark.quick_cases('0')
  def test_best_of_few_in_any_order(self, rows):
    # Many rows are put in order by counting, few are sorted.
    rng = np.random.default_rng(rows)
    few = np.array([-np.inf, -1.0, -0.0, 0.0, 2.0, np.nan], np.float32)
    scores = few[rng.integers(0, 6, (rows, 40))]
    age = np.argsort(rng.random((rows, 40))).astype(np.int32)
    index, best = jax.device_get(_best_of(scores, age, 9))
    for row in range(rows):
      rank = np.where(np.isnan(scores[row]), np.inf, scores[row])
      expected = np.lexsort((age[row], -rank))[:9]
      kept = rank[expected] != -np.inf
      assert index[row][kept].tolist() == expected[kept].tolist()
      np.testing.assert_array_equal(best[row], scores[row][expected])

  @parameterized.parameters(0, -1, _LENGTH + 1)
  def test_k_out_of_bounds_is_refused(self, k):
    with self.assertRaisesRegex(ValueError, f'top_k={k}.*length, {_LENGTH}'):
      search.top_k(jnp.zeros(_LENGTH), jnp.ones(_LENGTH, bool), k)

  def test_shapes_that_contradict_are_refused(self):
    # By the hook in tests/conftest.py: this fails if it came too late.
    with self.assertRaises(jaxtyping.TypeCheckError):
      search.top_k(jnp.zeros(3), jnp.ones(4, bool), 1)

  @parameterized.parameters(np.nan, -np.nan)
  def test_nan_ranks_first_and_only_if_visible(self, nan):
    scores = np.array([1.0, nan, 2.0, nan], np.float32)
    index, mask = _top_k(scores, np.array([1, 1, 1, 0], bool), 2)
    # A diverged model shows in its output instead of hiding behind padding.
    assert index.tolist() == [1, 2] and np.all(mask)

  def test_minus_infinity_counts_as_invisible(self):
    scores = np.array([-np.inf, 1.0], np.float32)
    _, mask = _top_k(scores, np.ones(2, bool), 2)
    assert mask.tolist() == [True, False]

  def test_half_precision_scores_rank_the_same(self):
    scores = np.array([0.5, 2.0, -1.0, 2.0], jnp.bfloat16)
    index, _ = _top_k(scores, np.ones(4, bool), 3)
    assert index.tolist() == [3, 1, 0]

  def test_the_choice_carries_no_gradient(self):
    def total(scores: jax.Array) -> jax.Array:
      index, mask = search.top_k(scores, jnp.ones(4, bool), 2)
      return jnp.sum(index * mask).astype(jnp.float32) + 0.0 * scores[0]

    scores = np.arange(4, dtype=np.float32)
    assert not np.any(jax.jit(jax.grad(total))(scores))


# Rows that are ranked by groups. Compiled once each: shapes stay the same.
_BY_GROUPS = ((4096, 20), (5003, 7), (4100, 64))


def _slow(scores, visible, k, newest):
  """Sorts by NaN first, then score, then age."""
  age = (newest - np.arange(len(scores))) % len(scores)
  nan = np.isnan(scores)
  value = np.where(nan, 0, scores)
  order = np.lexsort((age, -value, ~nan, ~visible | (scores == -np.inf)))
  return order[: min(k, np.sum(visible & (scores != -np.inf)))]


class LongRowsTest(parameterized.TestCase):
  def _check(self, scores, visible, k, newest=None):
    ring = None if newest is None else np.array([newest])
    index, mask = jax.device_get(_top_k(scores[None], visible[None], k, ring))
    last = len(scores) - 1 if newest is None else newest
    expected = _slow(scores, visible, k, last)
    assert index[mask].tolist() == expected.tolist()
    assert mask[0].tolist() == [i < len(expected) for i in range(k)]
    assert ((index >= 0) & (index < len(scores))).all()

  @hypothesis.given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from(_BY_GROUPS),
    values=st.sampled_from([1, 2, 40, 10**6]),
    share=st.sampled_from([0.0, 0.002, 0.5, 1.0]),
    odd=st.sampled_from([0.0, 0.001, 0.3]),
  )
  def test_equals_sorting(self, seed, shape, values, share, odd):
    self._check(*_draw(seed, shape[0], values, share, odd), shape[1])

  @hypothesis.given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([(4096, 20), (4112, 64), (48, 5), (45, 45)]),
    values=st.sampled_from([1, 2, 40]),
    share=st.sampled_from([0.002, 0.5, 1.0]),
    data=st.data(),
  )
  def test_in_a_ring_recency_counts_from_its_newest(
    self, seed, shape, values, share, data
  ):
    length, k = shape
    newest = data.draw(st.integers(0, length - 1))
    scores, visible = _draw(seed, length, values, share, 0.001)
    self._check(scores, visible, k, newest)

  def test_a_ring_that_does_not_divide_into_groups_is_refused(self):
    ones = jnp.ones((1, 5003))
    with self.assertRaisesRegex(ValueError, 'ring of 5003.*multiple of 16'):
      search.top_k(ones, ones > 0, 4, jnp.array([1]))

  @parameterized.parameters((64, 5), (4096, 20))
  @pytest.mark.quick_cases('0')
  def test_the_parts_of_a_history_merge_to_the_whole(self, length, k):
    # vmap stands for the devices: the collectives are the same.
    scores, visible = _draw(length, 4 * length, 30, 0.1, 0.001)
    parts = lambda x: x.reshape(4, 1, length)
    run = lambda s, v: search.sharded_top_k(s, v, k, 'devices')
    run = jax.jit(jax.vmap(run, axis_name='devices'))
    index, mask = jax.device_get(run(parts(scores), parts(visible)))
    expected = _slow(scores, visible, k, len(scores) - 1)
    for device in range(4):
      assert index[device, 0].tolist() == expected.tolist()
    assert mask.all()

  def test_parts_send_k_scores_and_indices_each(self):
    run = lambda s, v: search.sharded_top_k(s, v, 20, 'devices')
    shape = jnp.zeros((1, 4096))
    jaxpr = jax.make_jaxpr(run, axis_env=[('devices', 4)])(shape, shape == 0)
    sent = [
      var.aval.shape
      for eqn in jaxpr.eqns
      if eqn.primitive.name == 'all_gather'
      for var in eqn.invars
    ]
    assert sent == [(1, 20), (1, 20)], sent


def _draw(seed, length, values, share, odd):
  """Scores with many ties and odd values, and what is visible of them."""
  rng = np.random.default_rng(seed)
  scores = rng.integers(-values, values, length).astype(np.float32)
  strange = rng.choice(
    np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0], np.float32), length
  )
  scores = np.where(rng.random(length) < odd, strange, scores)
  return scores, rng.random(length) < share


if __name__ == '__main__':
  absltest.main()
