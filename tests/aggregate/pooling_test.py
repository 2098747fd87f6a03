"""Attention weights and pooling: masks, empty rows, extremes, gradients."""

from __future__ import annotations

from absl.testing import absltest
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import aggregate
from dare_jax import types
from tests.models import reference_parts

_LENGTH = 5


def _rows(elements: st.SearchStrategy) -> st.SearchStrategy:
  return st.lists(elements, min_size=_LENGTH, max_size=_LENGTH)


class MaskedSoftmaxTest(absltest.TestCase):
  @hypothesis.given(
    scores=_rows(st.floats(-50, 50, width=32)), mask=_rows(st.booleans())
  )
  def test_equals_the_definition_with_exact_zeros(self, scores, mask):
    weights = aggregate.masked_softmax(jnp.array(scores), jnp.array(mask))
    kept = np.flatnonzero(mask)
    expected = np.zeros(_LENGTH)
    expected[kept] = reference_parts.softmax([scores[i] for i in kept])
    # exp of a difference of up to 100, whose rounding is 100 * 2^-24.
    np.testing.assert_allclose(weights, expected, rtol=2e-5, atol=1e-12)
    assert not np.any(np.asarray(weights)[~np.array(mask)])

  @hypothesis.given(
    scores=_rows(st.floats(-50, 50, width=32)), mask=_rows(st.booleans())
  )
  def test_gradient_of_masked_places_is_exactly_zero(self, scores, mask):
    values = jnp.arange(1.0, 1.0 + _LENGTH)
    total = lambda s: jnp.sum(
      aggregate.masked_softmax(s, jnp.array(mask)) * values
    )
    grad = np.asarray(jax.grad(total)(jnp.array(scores)))
    assert np.isfinite(grad).all()
    assert not np.any(grad[~np.array(mask)])
    if sum(mask) <= 1:
      assert not np.any(grad)

  def test_masked_values_may_be_anything(self):
    scores = jnp.array([1.0, jnp.nan, jnp.inf, 2.0, -jnp.inf])
    mask = jnp.array([True, False, False, True, False])

    def first(scores: jax.Array) -> jax.Array:
      return aggregate.masked_softmax(scores, mask)[0]

    weight, grad = jax.value_and_grad(first)(scores)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(weight, p, rtol=1e-6)
    np.testing.assert_allclose(
      grad, [p * (1 - p), 0, 0, -p * (1 - p), 0], rtol=1e-6
    )

  def test_a_constant_on_all_scores_changes_nothing(self):
    scores = jnp.array([0.5, -1.25, 3.0, 0.0, 2.5])
    mask = jnp.array([True, True, False, True, True])
    # The constant is a power of two: the sums are exact.
    np.testing.assert_array_equal(
      aggregate.masked_softmax(scores, mask),
      aggregate.masked_softmax(scores + 1024.0, mask),
    )

  def test_scores_beyond_the_range_of_exp(self):
    weights = aggregate.masked_softmax(
      jnp.array([3e38, -3e38, 3e38]), jnp.ones(3, bool)
    )
    np.testing.assert_array_equal(weights, [0.5, 0.0, 0.5])

  def test_half_precision_is_summed_in_float32(self):
    scores = jnp.zeros(1000, jnp.bfloat16)
    weights = aggregate.masked_softmax(scores, jnp.ones(1000, bool))
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)


class PoolingTest(absltest.TestCase):
  def test_equals_the_sum(self):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    values = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    mask = rng.random(scores.shape) < 0.6
    mask[0, 0, 0] = False
    result = types.SearchResult(
      indices=jnp.zeros(mask.shape, jnp.int32),
      scores=jnp.array(scores),
      mask=jnp.array(mask),
      distance=jnp.zeros(mask.shape, jnp.int32),
    )
    content, time = jnp.split(jnp.array(values), [3], axis=-1)
    pooling = aggregate.SoftmaxPooling(aggregate.AggregationOptions())
    pooled, weights = pooling.apply(
      {}, result, aggregate.Values(content, time), jnp.zeros((2, 2, 3, 3))
    )
    np.testing.assert_allclose(
      weights.sum(-1), mask.any(-1).astype(float), rtol=1e-5
    )
    for where in np.ndindex(2, 2, 3):
      kept = np.flatnonzero(mask[where])
      weights = reference_parts.softmax(scores[where][kept].tolist())
      expected = np.zeros(5)
      for i, weight in zip(kept, weights, strict=True):
        expected += weight * values[where][i]
      np.testing.assert_allclose(pooled[where], expected, rtol=1e-5, atol=1e-6)
    assert not pooled[0, 0, 0].any()


if __name__ == '__main__':
  absltest.main()
