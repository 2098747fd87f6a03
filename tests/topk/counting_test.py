"""The k best by counting against sorting, as `search.top_k` gives them."""

from __future__ import annotations

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import search
from dare_jax.topk import counting
from dare_jax.topk import selection

# Rows, length, k: few lanes and many, whole rows and groups, k = n and k = 1,
# lengths at the borders of lanes, words and groups. Compiled once each.
_SHAPES = (
  (1100, 63, 63),
  (400, 200, 20),
  (330, 200, 1),
  (64, 1024, 33),
  (64, 1025, 20),
  (5, 16400, 7),
)
_RINGS = ((330, 208, 20), (64, 1040, 20))
_best_k = jax.jit(selection.best_k, static_argnames='k')
_kept = jax.jit(selection.kept, static_argnames='k')


def _draw(seed, rows, length, values, share, odd):
  """Scores with ties and odd values, and what is visible of them."""
  rng = np.random.default_rng(seed)
  shape = rows, length
  if values:
    scores = rng.integers(-values, values, shape).astype(np.float32)
  else:
    scores = rng.standard_normal(shape, dtype=np.float32)
  strange = np.array(
    [np.nan, -np.nan, np.inf, -np.inf, -0.0, 3e38, -3e38, 1e-45], np.float32
  )
  is_odd = rng.random(shape) < odd
  scores = np.where(is_odd, rng.choice(strange, shape), scores)
  visible = rng.random(shape) < share
  # Some rows show nothing, and some all.
  visible[::7], visible[3::7] = False, True
  return scores, visible


def _slow(scores, visible, newest):
  """Returns all indices, sorted: NaN first, then by score, then by age."""
  length = scores.shape[-1]
  age = (newest - np.arange(length)) % length
  nan = np.isnan(scores)
  hidden = ~visible | (scores == -np.inf)
  keys = (age, -np.where(nan, 0, scores), ~nan, hidden)
  order = np.lexsort(np.broadcast_arrays(*keys), axis=-1)
  return order, np.sum(~hidden, axis=-1)


def _of_any(shapes):
  return hypothesis.given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from(shapes),
    values=st.sampled_from([0, 1, 2, 40]),
    share=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    odd=st.sampled_from([0.0, 0.001, 0.3]),
  )


class CountingTest(parameterized.TestCase):
  def _check(self, scores, visible, k, newest=None):
    rows, length = scores.shape
    assert counting.suits(rows, length, k)
    index, best = jax.device_get(_best_k(scores, visible, k, newest))
    last = length - 1 if newest is None else newest[:, None]
    order, count = _slow(scores, visible, last)
    is_there = np.arange(k) < count[:, None]
    np.testing.assert_array_equal(best != -np.inf, is_there)
    np.testing.assert_array_equal(
      np.where(is_there, index, -1), np.where(is_there, order[:, :k], -1)
    )
    expected = np.take_along_axis(scores, order[:, :k], axis=-1)
    np.testing.assert_array_equal(
      np.where(is_there, best, -1), np.where(is_there, expected, -1)
    )
    assert ((index >= 0) & (index < length)).all()
    if newest is None:
      in_place = np.zeros(scores.shape, bool)
      np.put_along_axis(in_place, order[:, :k], is_there, axis=-1)
      found = _kept(scores, visible, k)
      np.testing.assert_array_equal(found, in_place)

  @_of_any(_SHAPES[::2])
  def test_equals_sorting(self, seed, shape, values, share, odd):
    rows, length, k = shape
    self._check(*_draw(seed, rows, length, values, share, odd), k)

  @pytest.mark.slow
  @_of_any(_SHAPES[1::2])
  def test_equals_sorting_in_further_shapes(
    self, seed, shape, values, share, odd
  ):
    rows, length, k = shape
    self._check(*_draw(seed, rows, length, values, share, odd), k)

  @hypothesis.given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from(_RINGS),
    values=st.sampled_from([0, 1, 2, 40]),
    share=st.sampled_from([0.01, 1.0]),
    odd=st.sampled_from([0.0, 0.001]),
  )
  def test_in_a_ring_recency_counts_from_its_newest(
    self, seed, shape, values, share, odd
  ):
    rows, length, k = shape
    scores, visible = _draw(seed, rows, length, values, share, odd)
    newest = np.random.default_rng(seed).integers(0, length, rows)
    newest[:2] = 0, length - 1
    self._check(scores, visible, k, newest.astype(np.int32))

  @parameterized.parameters(*_SHAPES)
  @pytest.mark.quick_cases('0', '2')
  def test_equal_scores_are_kept_from_the_most_recent(self, rows, length, k):
    ones = np.ones((rows, length), np.float32)
    index, _ = _best_k(ones, ones > 0, k, None)
    expected = np.broadcast_to(length - 1 - np.arange(k), (rows, k))
    np.testing.assert_array_equal(index, expected)

  def test_rows_are_counted_in_turns(self):
    # 700 is no multiple of what a turn takes.
    scores, visible = _draw(0, 700, 150, 20, 0.8, 0.01)
    with mock.patch.object(counting, '_TURN', 1 << 14):
      self._check(scores, visible, 9)

  def test_leading_axes_and_a_mask_that_broadcasts(self):
    scores, visible = _draw(1, 400, 200, 30, 0.5, 0.001)
    windows = lambda x: x.reshape(100, 2, 2, 200)
    index, _ = _best_k(windows(scores), windows(visible)[:, :, :1], 20)
    shown = np.repeat(windows(visible)[:, :, :1], 2, axis=2)
    flat, _ = _best_k(scores, shown.reshape(400, 200), 20, None)
    np.testing.assert_array_equal(np.reshape(index, (400, 20)), flat)

  def test_half_precision_scores_rank_the_same(self):
    scores, visible = _draw(2, 400, 200, 90, 0.5, 0.0)
    half = _best_k(scores.astype(jnp.bfloat16), visible, 20, None)
    jax.tree.map(
      np.testing.assert_array_equal, half, _best_k(scores, visible, 20, None)
    )

  @parameterized.parameters((400, 200, 20), (5, 16400, 7))
  @pytest.mark.quick_cases('0')
  def test_where_float64_is_on(self, rows, length, k):
    scores, visible = _draw(3, rows, length, 20, 0.5, 0.01)
    newest = np.arange(rows, dtype=np.int32) % length
    with jax.enable_x64(True):
      self._check(scores, visible, k, newest)
      index, best = _best_k(np.float64(scores), visible, k, None)
    assert (index.dtype, best.dtype) == (np.int32, np.float32)

  def test_only_a_cpu_counts(self):
    choose = lambda s: search.top_k(s, jnp.ones((1, 200), bool), 20)
    traced = jax.jit(choose).trace(jnp.zeros((400, 200)))
    for platform, counts in (('cpu', True), ('tpu', False), ('cuda', False)):
      text = traced.lower(lowering_platforms=(platform,)).as_text()
      assert ('popcnt' in text) is counts, platform
      assert ('top_k' in text.replace('best_k', '')) is not counts, platform

  def test_the_choice_carries_no_gradient(self):
    scores, visible = _draw(3, 400, 200, 0, 0.5, 0.0)

    @jax.jit
    @jax.grad
    def gradient(scores: jax.Array) -> jax.Array:
      index, mask = search.top_k(scores, jnp.array(visible), 20)
      kept = jnp.take_along_axis(scores, index, axis=-1)
      return jnp.sum(jnp.where(mask, kept, 0.0))

    order, count = _slow(scores, visible, 199)
    expected = np.zeros_like(scores)
    for row in range(400):
      expected[row, order[row, : min(20, count[row])]] = 1
    np.testing.assert_array_equal(gradient(scores), expected)


if __name__ == '__main__':
  absltest.main()
