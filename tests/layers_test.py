"""Batch normalisation: its statistics, and what all rows share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import layers


def variables_of(x, scale=None, **stats):
  """Those of no step, changed."""
  width = x.shape[-1]
  zeros, ones = np.zeros(width, np.float32), np.ones(width, np.float32)
  fresh = {'mean': zeros, 'var': ones, 'count': np.float32(0)}
  return {
    'params': {'scale': ones if scale is None else scale, 'bias': zeros},
    'batch_stats': fresh | stats,
  }


def apply(x, mask, scale=None, momentum=None, **stats):
  """Returns normalised rows and the running statistics after one batch."""
  variables = variables_of(x, scale, **stats)
  if momentum is not None:
    variables['batch_stats'].pop('count')
  normal, updated = normalise(momentum, variables, x, mask)
  return normal, updated['batch_stats']


@functools.partial(jax.jit, static_argnums=0)
def normalise(momentum, variables, x, mask):
  norm = layers.BatchNorm(use_running_average=False, momentum=momentum)
  return norm.apply(variables, x, mask, mutable=['batch_stats'])


def rows_and_mask(shift=0.0, rows=(7, 31), share=0.8):
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(*rows, 5)) * 0.1 + shift).astype(np.float32)
  mask = rng.random(rows) < share
  mask[0, :3] = False  # The first row is not real.
  return x, mask


@pytest.mark.parametrize('shift', [0.0, 100.0])
@pytest.mark.parametrize('momentum', [None, 0.9])
def test_statistics_of_real_rows(shift, momentum):
  """Also of values far from 0, where a mean of squares would tell nothing."""
  x, mask = rows_and_mask(shift)
  wide = x.astype(np.float64)[mask]
  mean, var = wide.mean(0), wide.var(0)
  normal, stats = apply(x, mask, momentum=momentum)
  expected = (x - mean) / np.sqrt(var + 1e-5)
  np.testing.assert_allclose(normal[mask], expected[mask], atol=3e-4)
  if momentum is None:
    assert stats['count'] == mask.sum()
  else:
    mean, var = 0.1 * mean, 0.9 + 0.1 * var
    assert 'count' not in stats
  np.testing.assert_allclose(stats['mean'], mean, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(stats['var'], var, rtol=1e-5)


def test_what_all_rows_share_is_zero_in_every_bit():
  rows = np.random.default_rng(0).normal(size=5).astype(np.float32)
  # Others hold something else, also in the first place.
  mask = np.arange(7 * 31).reshape(7, 31) < 201
  mask[0, :2] = False
  x = np.where(mask[..., None], rows, 3 + rows)

  def loss(scale):
    normal, stats = apply(x, mask, scale)
    return jnp.sum(jnp.cos(normal + 1.0)), (normal, stats)

  grad = jax.jit(jax.grad(loss, has_aux=True))
  gradient, (normal, stats) = grad(np.ones(5, np.float32))
  assert not np.any(normal) and not np.any(gradient)
  np.testing.assert_array_equal(stats['mean'], rows)
  assert not np.any(stats['var'])


def old_statistics():
  mean, var = np.full(5, 0.3, np.float32), np.full(5, 2.0, np.float32)
  return {'mean': mean, 'var': var, 'count': np.float32(50)}


@jax.jit
def value_and_gradient(x, mask):
  """Of a sum over what is real; beside the value, what `apply` returns."""

  def loss(x):
    normal, stats = apply(x, mask, **old_statistics())
    return jnp.sum(mask[..., None] * jnp.cos(normal + 1.0)), (normal, stats)

  return jax.value_and_grad(loss, has_aux=True)(x)


@pytest.mark.parametrize('held', [1e2, 1e4, 3e38, np.inf, np.nan])
@pytest.mark.parametrize('place', ['first', 'last', 'all that are not real'])
def test_what_is_not_real_changes_nothing(held, place):
  """Neither values, statistics nor gradients, in any bit."""
  x, mask = rows_and_mask()
  where = {'first': (0, 0), 'last': (-1, -1)}.get(place, ~mask)
  if place == 'last':
    mask[-1, -1] = False
  filled = x.copy()
  filled[where] = held
  plain, changed = value_and_gradient(x, mask), value_and_gradient(filled, mask)
  for one, other in zip(*map(jax.tree.leaves, (plain, changed)), strict=True):
    np.testing.assert_array_equal(other, one)
  assert np.isfinite(plain[1]).all() and np.any(plain[1])
  assert not np.any(np.asarray(plain[1])[~mask])


@pytest.mark.parametrize('momentum', [None, 0.9])
def test_a_batch_without_real_rows_leaves_the_statistics(momentum):
  x, mask = rows_and_mask()
  stats = old_statistics()
  x[0, 0] = np.nan
  normal, new = apply(x, np.zeros_like(mask), momentum=momentum, **stats)
  assert np.isfinite(normal).all()
  for name, value in new.items():
    np.testing.assert_array_equal(value, stats[name])


def test_batches_of_a_few_rows_make_a_wide_average():
  """Their means lie apart by more than rows within one do."""
  rng = np.random.default_rng(1)
  batches = rng.normal(size=(600, 4, 2)) + 3 * rng.normal(size=(600, 1, 2))
  stats = {}
  norm = jax.jit(lambda x, stats: apply(x, np.ones(4, bool), **stats)[1])
  for x in batches.astype(np.float32):
    stats = norm(x, stats)
  assert stats['count'] == 4 * 600
  # Of some 60 independent means: six standard errors.
  assert np.abs(stats['mean']).max() < 6 * 3 * 60**-0.5
  np.testing.assert_allclose(stats['var'], 10.0, rtol=6 * (2 / 60) ** 0.5)


@pytest.mark.parametrize(
  ('rows', 'before', 'weight'),
  [
    (24, 0, 1),  # The first is all there is,
    (24, 9 * 24, 1),  # and of ten the last is a tenth.
    (24, 19 * 24, 1 / 2),
    (24, 99 * 24, 1 / 10),
    (24, 1e9, 24 / 20_490),
    (2_049, 1e9, 1 / 10),  # As by 0.9 of each step.
    (30_000, 1e9, 1),
  ],
)
def test_the_weight_of_a_batch_is_its_share_of_the_recent_rows(
  rows, before, weight
):
  x = np.full((rows, 2), 5.0, np.float32)
  old = {'mean': np.ones(2, np.float32), 'var': np.full(2, 3, np.float32)}
  before = min(before, layers.ENOUGH)
  _, stats = apply(x, np.ones(rows, bool), **old, count=np.float32(before))
  np.testing.assert_allclose(stats['mean'], 1 + 4 * weight, rtol=1e-5)
  variance = (1 - weight) * 3.0 + weight * (1 - weight) * 16.0
  np.testing.assert_allclose(stats['var'], variance, rtol=1e-4, atol=1e-5)
  assert stats['count'] == min(before + rows, layers.ENOUGH)


def test_running_statistics_normalise_and_stay():
  x, mask = rows_and_mask()
  stats = old_statistics()
  norm = layers.BatchNorm(use_running_average=True)
  apply = jax.jit(functools.partial(norm.apply, mutable=['batch_stats']))
  normal, new = apply(variables_of(x, **stats), x, mask)
  np.testing.assert_allclose(normal, (x - 0.3) / np.sqrt(2.0 + 1e-5), rtol=1e-5)
  np.testing.assert_array_equal(new['batch_stats']['mean'], stats['mean'])
