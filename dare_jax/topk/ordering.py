"""Scores as integers that compare as they rank: NaN above all, zeros equal.

Integers, because maxima of floats may lose a NaN, and `jax.lax.top_k` tells
zeros and NaNs apart by their bits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

# Bits of float32: all but the sign, and infinity.
_MAGNITUDE = 0x7FFFFFFF
_INFINITY = 0x7F800000
# Of minus infinity, what is not to be kept, and below every order.
NOTHING = -_INFINITY
LOWEST = -(2**31)


def order_of(scores: Float[Array, ...]) -> Int[Array, ...]:
  """Returns the orders of scores, from `NOTHING` to 0x7F800001, that of NaN."""
  bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32)
  magnitude = jnp.minimum(bits & _MAGNITUDE, _INFINITY + 1)
  order = jnp.where(bits < 0, -magnitude, magnitude)
  return jnp.where(magnitude > _INFINITY, magnitude, order)


def score_of(order: Int[Array, ...]) -> Float[Array, ...]:
  """Returns the float32 scores of orders; -inf of those below `NOTHING`."""
  order = jnp.maximum(order, NOTHING)
  bits = jnp.where(order < 0, -order | ~_MAGNITUDE, order)
  return jax.lax.bitcast_convert_type(bits, jnp.float32)
