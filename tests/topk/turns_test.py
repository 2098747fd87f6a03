"""Users in turns against all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.topk import turns


@pytest.mark.parametrize('size', [1, 2, 3, 4, 7, 8, 20])
def test_turns_of_any_size_are_all_at_once(size):
  """Also where the last turn is short, and of results of several kinds."""
  x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 5)), jnp.float32)
  each = jnp.arange(8, dtype=jnp.int32)

  def find(take):
    assert len(take(x)) == min(size, 8)
    return {'best': jnp.argmax(take(x), axis=1), 'sum': take(each)[:, None] + 1}

  found = jax.jit(lambda: turns.of_users(find, 8, size))()
  np.testing.assert_array_equal(found['best'], np.argmax(x, axis=1))
  np.testing.assert_array_equal(found['sum'][:, 0], np.arange(8) + 1)
