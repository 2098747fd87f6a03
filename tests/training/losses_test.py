"""Losses: values by formula, weights, extremes, gradients."""

from __future__ import annotations

import math

from absl.testing import absltest
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import types
from dare_jax.training import losses

_entropy = jax.jit(losses.binary_cross_entropy, static_argnums=2)


class BinaryCrossEntropyTest(absltest.TestCase):
  @hypothesis.given(
    logit=st.floats(-30, 30, width=32), label=st.sampled_from([0.0, 1.0])
  )
  def test_equals_the_definition(self, logit, label):
    prob = 1 / (1 + math.exp(-logit if label else logit))
    for epsilon in (0.0, 1e-8):
      found = _entropy(np.float32(logit), np.float32(label), epsilon)
      # Near 0 it is a float32 logarithm of nearly 1.
      np.testing.assert_allclose(
        found, -math.log(prob + epsilon), rtol=1e-5, atol=2e-7
      )

  def test_never_overflows(self):
    logits = np.array([-3e38, 3e38, -100.0], np.float32)
    labels = np.array([0.0, 1.0, 1.0], np.float32)
    total = lambda x, labels: jnp.sum(losses.binary_cross_entropy(x, labels))
    value, grad = jax.jit(jax.value_and_grad(total))(logits, labels)
    np.testing.assert_allclose(value, 100.0, rtol=1e-6)
    np.testing.assert_allclose(grad, [0.0, 0.0, -1.0], atol=1e-6)

  def test_epsilon_bounds_the_loss(self):
    loss = _entropy(np.float32(-3e38), np.float32(1.0), 1e-8)
    np.testing.assert_allclose(loss, -math.log(1e-8), rtol=1e-6)

  def test_half_precision_logits_give_float32(self):
    loss = _entropy(np.zeros(3, jnp.bfloat16), np.ones(3, np.float32))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)


class WeightedMeanTest(absltest.TestCase):
  def test_weights_count(self):
    mean = jax.jit(losses.weighted_mean)(
      np.array([1.0, 10.0, 100.0], np.float32),
      np.array([1.0, 3.0, 0.0], np.float32),
    )
    np.testing.assert_allclose(mean, (1 * 1 + 3 * 10) / 4, rtol=1e-6)

  def test_nothing_to_average(self):
    value, grad = jax.jit(jax.value_and_grad(losses.weighted_mean))(
      np.array([1.0, 2.0], np.float32), np.zeros(2, np.float32)
    )
    assert value == 0 and not np.any(grad)


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


def _targets(seed=0):
  """Moments with none, one and several positives, padding, and contrast."""
  rng = np.random.default_rng(seed)
  shape = (3, 2, 5)
  label = rng.integers(0, 2, shape).astype(np.float32)
  label[0, 0], label[0, 1] = 0, 1
  weight = (rng.random(shape) < 0.8).astype(np.float32)
  mask = (weight == 0) & (rng.random(shape) < 0.6)
  mask[0] = False
  contrast = types.Contrast(mask, rng.normal(size=shape) * mask)
  logits = rng.normal(size=shape)
  return logits, types.Targets({}, label * ~mask, weight, contrast)


def _slowly(logits, targets):
  """Positive by positive, in float64; value and gradient of the mean."""
  total, count = 0.0, 0.0
  grad = np.zeros(logits.shape)
  for place in np.argwhere((targets.label > 0.5) & (targets.weight > 0)):
    b, m, c = place
    scores = {c: logits[b, m, c]}
    for other in range(logits.shape[-1]):
      if targets.weight[b, m, other] > 0 and targets.label[b, m, other] < 0.5:
        scores[other] = logits[b, m, other]
      if targets.contrast.mask[b, m, other]:
        ratio = targets.contrast.log_ratio[b, m, other]
        scores[other] = logits[b, m, other] - ratio
    if len(scores) == 1:
      continue
    norm = sum(math.exp(score) for score in scores.values())
    total -= math.log(math.exp(scores[c]) / norm)
    count += 1
    for other, score in scores.items():
      grad[b, m, other] += math.exp(score) / norm - (other == c)
  return total / count, grad / count


@jax.jit
@jax.value_and_grad
def _mean_and_gradient(logits, targets):
  found = losses.candidate_cross_entropy(logits, targets)
  return losses.weighted_mean(*found)


class CandidateCrossEntropyTest(absltest.TestCase):
  def test_equals_the_slow_twin_in_value_and_gradient(self):
    for seed in range(4):
      logits, targets = _targets(seed)

      value, grad = _mean_and_gradient(logits.astype(np.float32), targets)
      expected, slope = _slowly(logits, targets)
      np.testing.assert_allclose(value, expected, rtol=1e-5)
      np.testing.assert_allclose(grad, slope, atol=1e-6)

  def test_never_overflows(self):
    label = np.array([[[1.0, 0.0]]], np.float32)
    targets = types.Targets({}, label, np.ones_like(label))
    for logits, expected in (([200.0, -200.0], 0.0), ([-200.0, 200.0], 400.0)):
      logits = np.array([[logits]], np.float32)
      value, _ = jax.jit(losses.candidate_cross_entropy)(logits, targets)
      np.testing.assert_allclose(value[0, 0, 0], expected)


if __name__ == '__main__':
  absltest.main()
