"""Factors of products, as the matrix unit of a TPU takes them: in bfloat16.

A float32 is three bfloat16 that sum to it. Of the nine products of parts six
count. They lie side by side along the dimension that is summed: so one product
of bfloat16 is that of float32, and fills a unit that is 128 wide where few
dimensions alone would not.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import BFloat16

# Sublanes of a register that holds bfloat16.
_SUBLANES = 16
# Which parts of query and key are multiplied. What is left out is below 2^-23
# of the product.
_QUERY = (0, 0, 1, 0, 1, 2)
_KEY = (0, 1, 0, 2, 1, 0)


def of_query(query: Any) -> BFloat16[Array, 'b c e']:
  """Returns the first factor, from float32 or bfloat16 [b, c, d]."""
  if query.dtype == jnp.bfloat16:
    return query
  return _side_by_side(query, _QUERY, 2)


def of_keys(key: Any) -> BFloat16[Array, 'e w']:
  """Returns the second factor, within a kernel.

  Args:
    key: [d, w] of some behaviors: float32, int8, or int32 words [d / 2, w], two
      bfloat16 in each, the even dimension in its low half.
  """
  if key.dtype == jnp.int32:
    return pltpu.bitcast(key, jnp.bfloat16)
  if key.dtype == jnp.int8:
    return key.astype(jnp.float32).astype(jnp.bfloat16)
  return _side_by_side(key, _KEY, 0)


def _side_by_side(x: Any, parts: tuple[int, ...], axis: int) -> Any:
  """Returns parts of float32 numbers, one after the other along an axis."""
  edge = [(0, 0)] * x.ndim
  edge[axis] = (0, -x.shape[axis] % _SUBLANES)
  of_each = _three(jnp.pad(x, edge))
  return jnp.concatenate([of_each[part] for part in parts], axis)


def _three(x: Any) -> list[Any]:
  """Returns three bfloat16 that sum to a float32, the largest first."""
  parts = []
  for _ in range(2):
    # Rounded by its bits: compilers may leave out what only rounds.
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    rounded = (bits + 0x8000) & -0x10000
    part = jax.lax.bitcast_convert_type(rounded, jnp.float32)
    parts.append(part.astype(jnp.bfloat16))
    x = x - part
  return [*parts, x.astype(jnp.bfloat16)]
