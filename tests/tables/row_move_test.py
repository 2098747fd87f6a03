"""What row moves refuse, and how they round."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dare_jax.tables import row_move


def test_a_slot_that_is_not_by_row_is_refused():
  def init(table):
    return jnp.zeros(2 * table.shape[0])

  def square(table):
    return jnp.zeros((table.shape[0], table.shape[0]))

  for slots in (init, square):
    transform = optax.GradientTransformation(slots, lambda g, s, p: (g, s))
    with pytest.raises(ValueError, match='no row for each'):
      row_move.row_leaves(transform, 4)


def test_bfloat16_rounding_keeps_the_mean():
  value = jnp.full((200_000,), 1.0 + 2.0**-10)  # An eighth of a bfloat16 apart.
  rounded = row_move.rounded(jax.random.key(0), value, jnp.bfloat16)
  near = np.asarray(rounded, np.float32)
  assert set(np.unique(near)) == {1.0, 1.0 + 2.0**-7}
  np.testing.assert_allclose(near.mean(), value[0], atol=5e-5)
