"""Losses: values by formula, weights, extremes, gradients."""

from __future__ import annotations

import math

from absl.testing import absltest
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.training import losses


class BinaryCrossEntropyTest(absltest.TestCase):
  @hypothesis.given(
    logit=st.floats(-30, 30, width=32), label=st.sampled_from([0.0, 1.0])
  )
  def test_equals_the_definition(self, logit, label):
    prob = 1 / (1 + math.exp(-logit if label else logit))
    for epsilon in (0.0, 1e-8):
      found = losses.binary_cross_entropy(
        jnp.array(logit), jnp.array(label), epsilon
      )
      # Near 0 it is a float32 logarithm of nearly 1.
      np.testing.assert_allclose(
        found, -math.log(prob + epsilon), rtol=1e-5, atol=2e-7
      )

  def test_never_overflows(self):
    logits = jnp.array([-3e38, 3e38, -100.0])
    labels = jnp.array([0.0, 1.0, 1.0])
    value, grad = jax.value_and_grad(
      lambda x: jnp.sum(losses.binary_cross_entropy(x, labels))
    )(logits)
    np.testing.assert_allclose(value, 100.0, rtol=1e-6)
    np.testing.assert_allclose(grad, [0.0, 0.0, -1.0], atol=1e-6)

  def test_epsilon_bounds_the_loss(self):
    loss = losses.binary_cross_entropy(
      jnp.array(-3e38), jnp.array(1.0), epsilon=1e-8
    )
    np.testing.assert_allclose(loss, -math.log(1e-8), rtol=1e-6)

  def test_half_precision_logits_give_float32(self):
    loss = losses.binary_cross_entropy(
      jnp.zeros(3, jnp.bfloat16), jnp.ones(3, jnp.float32)
    )
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)


class WeightedMeanTest(absltest.TestCase):
  def test_weights_count(self):
    mean = losses.weighted_mean(
      jnp.array([1.0, 10.0, 100.0]), jnp.array([1.0, 3.0, 0.0])
    )
    np.testing.assert_allclose(mean, (1 * 1 + 3 * 10) / 4, rtol=1e-6)

  def test_nothing_to_average(self):
    zeros = jnp.zeros(2)
    value, grad = jax.value_and_grad(losses.weighted_mean)(
      jnp.array([1.0, 2.0]), zeros
    )
    assert value == 0 and not grad.any()


class L2Test(absltest.TestCase):
  def test_kernels_only(self):
    params = {
      'Dense_0': {'kernel': jnp.full((2, 3), 2.0), 'bias': jnp.ones(3)},
      'BatchNorm_0': {'scale': jnp.ones(3), 'bias': jnp.ones(3)},
      'PReLU_0': {'negative_slope': jnp.ones(())},
      'encoder': {'projection': {'kernel': jnp.full((1, 1), 3.0)}},
    }
    kernels = 2 * 3 * 2.0**2 + 3.0**2
    assert losses.l2_penalty(params) == kernels
    # As published: with three scales and a slope.
    assert losses.l2_penalty(params, norms=True) == kernels + 3 + 1

  def test_no_kernels(self):
    assert losses.l2_penalty({}) == 0


if __name__ == '__main__':
  absltest.main()
