"""Products of queries with cached keys, of any precision.

Keys lie as [b, d, l], each dimension of all behaviors in one run, which XLA's
CPU backend reads at the speed of memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

PRECISIONS = ('float32', 'bfloat16', 'int8')
# Of products that decide: GPUs and TPUs round float32 factors unasked.
EXACT = jax.lax.Precision.HIGHEST
# Up to so many candidates, narrow keys are widened as they are read.
FEW = 4
# Dimensions summed in one loop: with more, the compiler's loop is slower.
_UNROLL = 32


def narrow(
  columns: Float[Array, 'b d l'], precision: str
) -> tuple[Any, Float[Array, 'b l'] | None]:
  """Returns keys as they are stored, and their scales.

  Args:
    columns: float32 [b, d, l], the keys, one column a behavior.
    precision: one of `PRECISIONS`.

  Returns:
    Float32 or int8 [b, d, l]; or uint32 [b, ceil(d / 2), l], two bfloat16 in a
    word, the even dimension in its low half. Of int8, what a behavior's
    integers are to be multiplied by; else None.
  """
  if precision == 'int8':
    return _quantize(columns)
  if precision == 'bfloat16':
    columns = jnp.pad(columns, [(0, 0), (0, columns.shape[1] % 2), (0, 0)])
    half = columns.astype(jnp.bfloat16)
    bits = jax.lax.bitcast_convert_type(half, jnp.uint16).astype(jnp.uint32)
    return bits[:, 0::2] | (bits[:, 1::2] << 16), None
  return columns, None


def _quantize(
  columns: Float[Array, 'b d n'],
) -> tuple[Any, Float[Array, 'b n']]:
  """Returns int8 in -127 to 127, and what they are to be multiplied by."""
  scale = jnp.max(jnp.abs(columns), axis=1) / 127
  whole = jnp.round(columns / jnp.where(scale > 0, scale, 1)[:, None])
  return whole.astype(jnp.int8), scale


def scores(
  query: Float[Array, 'b c d'], columns: Any, scale: Float[Array, 'b l'] | None
) -> Float[Array, 'b c l']:
  """Returns <q, k>, as the precision of the keys gives it.

  Of int8, sums of products of integers, times the scales of both.

  Args:
    query: attention vectors of the targets, float32.
    columns: the narrowed keys, one column a behavior, from `narrow`.
    scale: float32 factor of each int8 key, from `narrow`; None: no int8.
  """
  if scale is None:
    return _products(query, columns)
  whole, own = _quantize(jnp.swapaxes(query, 1, 2))
  # Sums of integers below 2^24 are exact in float32, up to d = 1040. Products
  # of float32 take less time than those of int32.
  dots = _products(jnp.swapaxes(whole, 1, 2), columns)
  return dots * own[..., None] * scale[:, None]


def _products(query: Any, columns: Any) -> Float[Array, 'b c l']:
  """Returns <q, k>: a matrix product, or a sum that widens keys on the way.

  One target against short rows of float32 keys is a sum, too: many small
  products cost calls.
  """
  width = query.shape[-1]
  alone = query.shape[1] == 1 and width <= _UNROLL
  if columns.dtype == jnp.float32 and not alone:
    return jnp.einsum('bcd,bdl->bcl', query, columns, precision=EXACT)
  if query.shape[1] > FEW:
    return jnp.einsum(
      'bcd,bdl->bcl', query.astype(jnp.float32), widened(columns, width)
    )
  query = query.astype(jnp.float32)
  total = jnp.zeros(())
  for first in range(0, width, _UNROLL):
    # Four sums: an addition waits for the one before it.
    sums = [jnp.zeros(())] * 4
    for i in range(first, min(first + _UNROLL, width)):
      product = query[:, :, i, None] * _wide(columns, i)[:, None]
      sums[i % 4] = sums[i % 4] + product
    total = total + (sums[0] + sums[1] + sums[2] + sums[3])
    total = jax.lax.optimization_barrier(total)
  return total


def widened(columns: Any, width: int) -> Float[Array, 'b d l']:
  """Returns all dimensions of stored keys as float32, int8 without scale."""
  if columns.dtype == jnp.float32:
    return columns
  return jnp.stack([_wide(columns, i) for i in range(width)], axis=1)


def _wide(columns: Any, dimension: int) -> Float[Array, 'b l']:
  """Returns one dimension of stored keys as float32."""
  if columns.dtype != jnp.uint32:
    return columns[:, dimension].astype(jnp.float32)
  word = columns[:, dimension // 2]
  bits = word & jnp.uint32(0xFFFF0000) if dimension % 2 else word << 16
  return jax.lax.bitcast_convert_type(bits, jnp.float32)
