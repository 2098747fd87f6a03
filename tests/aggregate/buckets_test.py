"""SDIM's buckets: signatures, their sums, and the kernel they estimate."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import aggregate
from dare_jax import types

_SHAPES = ((1, 1, 1, 3, 2), (2, 3, 2, 6, 4), (3, 1, 4, 9, 5))


@dataclasses.dataclass
class _Inputs:
  result: types.SearchResult
  values: aggregate.Values
  target: jax.Array
  directions: jax.Array
  width: int = 2

  def pool(self, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    use = dataclasses.replace(self, **changes)
    bits = use.directions.shape[1]
    pooling = aggregate.BucketPooling(
      aggregate.AggregationOptions(bits, use.width)
    )
    variables = {'constants': {'directions': use.directions}}
    pool = jax.jit(pooling.apply)
    found = pool(variables, use.result, use.values, use.target)
    return tuple(map(np.asarray, found))


def _result(mask: np.ndarray) -> types.SearchResult:
  """A search that kept all; the scores are not to be read."""
  index = np.broadcast_to(np.arange(mask.shape[-1]), mask.shape)
  index = jax.device_put(index)
  return types.SearchResult(
    indices=index,
    scores=jax.device_put(np.full(mask.shape, np.nan)),
    mask=jax.device_put(mask),
    distance=index,
    everything=True,
  )


def _inputs(
  seed: int, shape: tuple[int, ...] = _SHAPES[1], bits: int = 12
) -> _Inputs:
  b, m, c, length, d = shape
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jax.device_put(rng.normal(size=shape))
  return _Inputs(
    result=_result(rng.random((b, m, c, length)) < 0.8),
    values=aggregate.Values(normal(b, length, d), normal(b, m, length, 3)),
    target=normal(b, m, c, d),
    directions=normal(d, bits),
  )


def _angles(seed: int, angles: np.ndarray, width: int) -> np.ndarray:
  """Returns vectors at angles from the first axis of a random plane."""
  rng = np.random.default_rng(seed)
  plane, _ = np.linalg.qr(rng.normal(size=(width, 2)))
  x, y = plane[:, :1], plane[:, 1:]
  return (np.cos(angles) * x + np.sin(angles) * y).T.astype(np.float32)


class SignaturesTest(parameterized.TestCase):
  @parameterized.parameters((1, 5), (2, 4), (3, 16), (8, 1))
  def test_equals_the_sum_of_powers(self, width, rounds):
    rng = np.random.default_rng(width)
    x = rng.normal(size=(3, 2, 4)).astype(np.float32)
    directions = rng.normal(size=(4, width * rounds)).astype(np.float32)
    found = np.asarray(
      aggregate.signatures(*map(jax.device_put, (x, directions)), width)
    )
    assert found.shape == (3, 2, rounds)
    for where in np.ndindex(*found.shape):
      part = directions[:, where[-1] * width : (where[-1] + 1) * width]
      bits = x[where[:-1]] @ part > 0
      assert found[where] == sum(2**j for j in range(width) if bits[j])


class BucketPoolingTest(parameterized.TestCase):
  @parameterized.parameters(*_SHAPES)
  def test_equals_the_equation(self, *shape):
    inputs = _inputs(0, shape)
    interest, weights = inputs.pool()
    content = np.asarray(inputs.values.content)
    time = np.asarray(inputs.values.time)
    target, mask = np.asarray(inputs.target), np.asarray(inputs.result.mask)
    for b, m, c in np.ndindex(*mask.shape[:3]):
      total, share = 0.0, np.zeros(mask.shape[-1])
      for part in np.split(np.asarray(inputs.directions), 6, axis=1):
        bucket = np.zeros(interest.shape[-1])
        for i in np.flatnonzero(mask[b, m, c]):
          bits = content[b, i] @ part > 0
          if (bits == (target[b, m, c] @ part > 0)).all():
            bucket += np.concatenate([content[b, i], time[b, m, i]])
            share[i] += 1 / 6
        length = np.linalg.norm(bucket)
        total = total + (bucket / length if length else bucket) / 6
      np.testing.assert_allclose(interest[b, m, c], total, rtol=1e-5, atol=1e-6)
      np.testing.assert_allclose(weights[b, m, c], share, rtol=1e-6)

  @parameterized.parameters(*_SHAPES)
  def test_windows_equal_gathered_copies(self, *shape):
    inputs = _inputs(1, shape)
    b, m, c, length = inputs.result.mask.shape
    content, time = inputs.values.content, inputs.values.time
    gathered = aggregate.Values(
      jnp.broadcast_to(
        content[:, None, None], (b, m, c, length, content.shape[-1])
      ),
      jnp.broadcast_to(time[:, :, None], (b, m, c, length, 3)),
    )
    for ours, theirs in zip(
      inputs.pool(), inputs.pool(values=gathered), strict=True
    ):
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(1, 2, 3)
  def test_many_rounds_weigh_by_the_angle(self, width):
    # Before the norm, the mean over rounds is sum_i (1 - t_i / pi)^width r_i.
    rounds = 10_000
    angles = np.array([0.0, 0.2, 0.9, np.pi / 2, 2.5])
    vectors = _angles(2, np.append(0.0, angles), 6)
    rng = np.random.default_rng(3)
    lengths = np.exp(rng.normal(size=(5, 1)))
    _, weights = _Inputs(
      result=_result(np.ones((1, 1, 1, 5), bool)),
      values=aggregate.Values(
        jnp.asarray(lengths * vectors[1:], jnp.float32)[None], None
      ),
      target=jnp.asarray(vectors[0])[None, None, None],
      directions=jnp.asarray(rng.normal(size=(6, width * rounds)), jnp.float32),
      width=width,
    ).pool()
    kernel = (1 - angles / np.pi) ** width
    sigma = np.sqrt(kernel * (1 - kernel) / rounds)
    error = np.abs(weights[0, 0, 0] - kernel)
    # Equal vectors of other lengths: rounding may flip a bit or two.
    assert (error <= 4 * sigma + 2 / rounds).all()

  def test_duplicates_double_the_sum_but_not_the_direction(self):
    inputs = _inputs(4)
    twice = dataclasses.replace(
      inputs,
      result=_result(np.concatenate([inputs.result.mask] * 2, axis=-1)),
      values=aggregate.Values(
        jnp.concatenate([inputs.values.content] * 2, axis=1),
        jnp.concatenate([inputs.values.time] * 2, axis=2),
      ),
    )
    once_interest, once = inputs.pool()
    interest, weights = twice.pool()
    sums = [
      np.asarray(use.values.weigh(jnp.asarray(w)))
      for use, w in ((inputs, once), (twice, weights))
    ]
    np.testing.assert_allclose(sums[1], 2 * sums[0], rtol=1e-5, atol=1e-6)
    # A softmax would not change at all; after the norm neither does this.
    np.testing.assert_allclose(interest, once_interest, rtol=1e-5, atol=1e-6)

  def test_the_target_in_its_history_always_collides(self):
    inputs = _inputs(5, (2, 1, 1, 6, 4))
    # The same matmul for both: not a bit may differ.
    content = inputs.values.content.at[:, 3].set(inputs.target[:, 0, 0])
    values = inputs.values.replace(content=content)
    everything = _result(np.ones((2, 1, 1, 6), bool))
    _, weights = inputs.pool(values=values, result=everything)
    np.testing.assert_allclose(weights[..., 3], 1.0, rtol=1e-6)
    # And the opposite never does.
    values = values.replace(content=content.at[:, 3].multiply(-1))
    _, weights = inputs.pool(values=values, result=everything)
    assert not np.any(weights[..., 3])

  def test_interest_is_at_most_a_unit_vector(self):
    interest, _ = _inputs(6).pool()
    assert (np.linalg.norm(interest, axis=-1) <= 1 + 1e-6).all()

  def test_positions_are_summed_but_not_hashed(self):
    inputs = _inputs(7)
    moved = inputs.values.replace(time=5.0 + inputs.values.time)
    interest, weights = inputs.pool()
    other, same = inputs.pool(values=moved)
    np.testing.assert_array_equal(weights, same)
    assert not np.allclose(interest, other)

  def test_only_the_kept_count(self):
    inputs = _inputs(8)
    _, weights = inputs.pool()
    assert not np.any(weights[~np.asarray(inputs.result.mask)])
    seen = np.asarray(inputs.result.mask).any(axis=(1, 2))
    wild = jnp.where(seen[..., None], inputs.values.content, 1e6)
    for ours, theirs in zip(
      inputs.pool(),
      inputs.pool(values=inputs.values.replace(content=wild)),
      strict=True,
    ):
      np.testing.assert_array_equal(ours, theirs)

  def test_targets_do_not_see_each_other(self):
    inputs = _inputs(9)
    alone = inputs.pool(
      target=inputs.target[:, :, 1:],
      result=jax.tree.map(lambda x: x[:, :, 1:], inputs.result),
    )
    for ours, whole in zip(alone, inputs.pool(), strict=True):
      np.testing.assert_allclose(ours, whole[:, :, 1:], rtol=1e-5, atol=1e-6)

  def test_nothing_kept_is_zero_with_zero_gradient(self):
    inputs = _inputs(10)
    nothing = _result(np.zeros(inputs.result.mask.shape, bool))
    interest, weights = inputs.pool(result=nothing)
    assert not np.any(interest) and not np.any(weights)
    pooling = aggregate.BucketPooling(aggregate.AggregationOptions(12, 2))
    variables = {'constants': {'directions': inputs.directions}}

    def total(result, variables, content, time, target):
      values = aggregate.Values(content, time)
      return jnp.sum(pooling.apply(variables, result, values, target)[0])

    given = inputs.values.content, inputs.values.time, inputs.target
    every = jax.jit(jax.grad(total, argnums=(1, 2, 3, 4)))
    for grad in jax.tree.leaves(every(nothing, variables, *given)):
      assert not np.any(grad)
    hashed, content, time, target = every(inputs.result, variables, *given)
    for grad in (content, time):
      assert np.any(grad) and np.isfinite(grad).all()
    # Hashes carry none.
    assert not np.any(target)
    assert not np.any(hashed['constants']['directions'])


if __name__ == '__main__':
  absltest.main()
