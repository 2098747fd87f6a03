"""Weighted sums: whole windows, gathered copies, content and time."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from dare_jax import aggregate

_SHAPES = ((1, 1, 1, 3), (2, 3, 2, 5), (3, 1, 4, 7))


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
  return rng.normal(size=shape).astype(np.float32)


class ValuesTest(parameterized.TestCase):
  @parameterized.product(shape=_SHAPES, rounds=((), (3,)), mixed=(False, True))
  def test_windows_equal_copies_and_the_sum(self, shape, rounds, mixed):
    b, m, c, length = shape
    rng = np.random.default_rng(length)
    content = _normal(rng, b, length, 4)
    time = _normal(rng, b, m, length, 4 if mixed else 2)
    weights = _normal(rng, b, m, c, *rounds, length)
    windows = aggregate.Values(jnp.array(content), jnp.array(time), mixed)
    copies = aggregate.Values(
      jnp.array(np.broadcast_to(content[:, None, None], (b, m, c, length, 4))),
      jnp.array(
        np.broadcast_to(time[:, :, None], (b, m, c, length, time.shape[-1]))
      ),
      mixed,
    )
    assert windows.whole_windows and not copies.whole_windows
    found = [np.asarray(v.weigh(jnp.array(weights))) for v in (windows, copies)]
    for where in np.ndindex(*weights.shape[:-1]):
      total = 0.0
      for i in range(length):
        parts = content[where[0], i], time[where[0], where[1], i]
        vector = parts[0] + parts[1] if mixed else np.concatenate(parts)
        total = total + weights[where][i] * vector
      for ours in found:
        np.testing.assert_allclose(ours[where], total, rtol=1e-5, atol=1e-5)

  def test_without_time_only_content_is_summed(self):
    rng = np.random.default_rng(0)
    content, weights = _normal(rng, 2, 5, 4), _normal(rng, 2, 3, 2, 5)
    found = aggregate.Values(jnp.array(content), None).weigh(jnp.array(weights))
    np.testing.assert_allclose(
      found, np.einsum('bmcl,bld->bmcd', weights, content), rtol=1e-5, atol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
