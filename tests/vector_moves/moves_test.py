"""What TPUs do instead of gathers, against the gathers; both run on the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import models
from dare_jax import vector_moves
from dare_jax.vector_moves import moves
from tests.models import examples


def _as_tpus_do():
  return mock.patch.object(
    moves,
    '_choose',
    lambda plain, tpu, *arguments: tpu(*arguments),
  )


def _both(function, x):
  """Returns values and gradients, as CPUs and as TPUs make them."""

  def weighed(x):
    found = function(x)
    weights = np.random.default_rng(1).normal(size=found.shape)
    return jnp.sum(found * weights.astype(np.float32)), found

  found = []
  for patch in (contextlib.nullcontext(), _as_tpus_do()):
    with patch:
      grads, values = jax.jit(jax.grad(weighed, has_aux=True))(x)
      found.append(jax.device_get((values, grads)))
  return found


def _draw(*shape):
  rng = np.random.default_rng(0)
  return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('n', [1, 5, 8])
@pytest.mark.parametrize('inner', [(), (2,), (3, 2)])
@pytest.mark.quick_cases('inner0-1', 'inner1-5', 'inner2-8')
def test_rows_moved_by_any_number_of_steps(n, inner):
  steps = np.arange(n + 1).reshape(1, -1)
  x = _draw(1, n + 1, *inner, n)
  plain, fast = _both(lambda x: vector_moves.moved_right(x, steps), x)
  for ours, theirs in zip(fast, plain, strict=True):
    np.testing.assert_array_equal(ours, theirs)
  for s in range(n + 1):
    expected = np.concatenate(
      [np.zeros((*inner, s), np.float32), x[0, s, ..., : n - s]], axis=-1
    )
    np.testing.assert_array_equal(plain[0][0, s], expected)


@pytest.mark.parametrize('of_targets', [False, True])
def test_entries_counted_back_from_any_end(of_targets):
  length = 6
  end = np.arange(length + 1, dtype=np.int32).reshape(1, -1)
  index = np.arange(length)[None, None]
  distance = np.maximum(end[..., None] - index, 0).astype(np.int32)
  table = _draw(*(1, length + 1, 2) if of_targets else (), length + 1)
  plain, fast = _both(
    lambda x: vector_moves.counted_back(x, end, distance), table
  )
  np.testing.assert_array_equal(fast[0], plain[0])
  np.testing.assert_allclose(fast[1], plain[1], rtol=1e-5, atol=1e-6)
  at = jax.jit(vector_moves.at_distance)(table, distance)
  np.testing.assert_array_equal(plain[0], at)


def test_numbers_taken_some_of_them_twice():
  x = _draw(2, 3, 9)
  x[0, 0, 4] = -np.inf
  index = np.random.default_rng(2).integers(0, 9, (2, 3, 7)).astype(np.int32)
  plain, fast = _both(lambda x: vector_moves.taken(x, index), x)
  np.testing.assert_array_equal(fast[0], plain[0])
  np.testing.assert_allclose(fast[1], plain[1], rtol=1e-6)
  np.testing.assert_array_equal(plain[0], np.take_along_axis(x, index, -1))


def test_numbers_put_two_at_the_same_place():
  x = _draw(2, 4)
  index = np.array([[2, 0, 3, 5], [1, 1, 4, 0]], np.int32)
  plain, fast = _both(lambda x: vector_moves.put(x, index, 6), x)
  np.testing.assert_allclose(fast[0], plain[0], rtol=1e-6)
  np.testing.assert_array_equal(fast[1], plain[1])
  expected = np.zeros((2, 6), np.float32)
  for row, places in enumerate(index):
    np.add.at(expected[row], places, x[row])
  np.testing.assert_allclose(plain[0], expected, rtol=1e-6)


@pytest.mark.parametrize('name', ['dare', 'twin'])
@pytest.mark.quick_cases('dare')
def test_a_model_learns_the_same(name):
  batch, model = examples.make_batch(0), examples.build(name, interest_heads=2)
  config = dataclasses.replace(model.config, kept_in_place=True)
  in_place = models.Ranker(config)
  variables = jax.device_get(examples.init(model, batch))
  heads = variables['params']['more_heads']
  heads['gate'] = heads['gate'] + 0.5

  def loss(model, learned):
    output, _ = model.apply(
      {**variables, **learned}, batch, train=True, mutable=['batch_stats']
    )
    return jnp.sum(output.logits**2) + jnp.sum(output.aux_logits**2)

  learned = {part: variables[part] for part in ('params', 'tables')}
  of = lambda model: jax.jit(jax.value_and_grad(lambda x: loss(model, x)))
  plain = of(model)(learned)
  with _as_tpus_do():
    fast = of(in_place)(learned)
  for ours, theirs in zip(
    jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
