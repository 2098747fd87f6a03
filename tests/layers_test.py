"""Batch normalisation: its statistics, and what all rows share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import layers


def apply(scale, x, mask):
  """Returns normalised rows and the running statistics after one batch."""
  norm = layers.BatchNorm(use_running_average=False)
  width = x.shape[-1]
  variables = {
    'params': {'scale': scale, 'bias': jnp.zeros(width)},
    'batch_stats': {'mean': jnp.zeros(width), 'var': jnp.ones(width)},
  }
  normal, updated = norm.apply(variables, x, mask, mutable=['batch_stats'])
  return normal, updated['batch_stats']


@pytest.mark.parametrize('shift', [0.0, 100.0])
def test_statistics_of_real_rows(shift):
  """Also of values far from 0, where a mean of squares would tell nothing."""
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(7, 31, 5)) * 0.1 + shift).astype(np.float32)
  mask = rng.random((7, 31)) < 0.8
  mask[0, 0] = False  # What others are measured from need not be real.
  wide = x.astype(np.float64)[mask]
  mean, var = wide.mean(0), wide.var(0)
  normal, stats = apply(jnp.ones(5), jnp.asarray(x), jnp.asarray(mask))
  expected = (x - mean) / np.sqrt(var + 1e-5)
  np.testing.assert_allclose(normal, expected, atol=3e-4)
  np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * var, rtol=1e-6)


def test_what_all_rows_share_is_zero_in_every_bit():
  rows = np.random.default_rng(0).normal(size=5).astype(np.float32)
  x = jnp.asarray(np.broadcast_to(rows, (7, 31, 5)))
  mask = jnp.arange(7 * 31).reshape(7, 31) < 201

  def loss(scale):
    normal, _ = apply(scale, x, mask)
    return jnp.sum(jnp.cos(normal + 1.0)), normal

  gradient, normal = jax.grad(loss, has_aux=True)(jnp.ones(5))
  assert not np.any(normal) and not np.any(gradient)
