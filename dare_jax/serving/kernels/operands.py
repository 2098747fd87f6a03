"""The arguments of the search kernels, and the scores made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float


class Operands(NamedTuple):
  """What a kernel searches, and for what.

  Attributes:
    queries: [b, c, h] each, the scaled queries of the targets: float32;
      bfloat16 where keys are narrower; two arrays, of the even and the odd
      dimensions, where keys are words.
    keys: the keys of the behaviors: float32 or int8 [b, d, l]; or int32 [b, h,
      l], two bfloat16 in a word, the even dimension in its low half.
    scale: float32 [b, l], what the products with a key are multiplied by; None
      is 1.
    bias: float32 [b, l], added to the scores; -inf is invisible.
    oldest: int32 [b], the slot at which each ring begins.
  """

  queries: Sequence[Any]
  keys: Any
  scale: Any
  bias: Any
  oldest: Any

  @property
  def length(self) -> int:
    """Slots of a row, l."""
    return self.keys.shape[-1]


def products(
  queries: Any, key: Any, precision: Any = jax.lax.Precision.HIGHEST
) -> Float[Array, 'c w']:
  """Returns <q, k> in float32, of bfloat16 queries in one pass.

  Args:
    queries: [c, d], the queries of some targets: float32, or bfloat16 where
      keys are narrower. Two arrays [c, d / 2] where two bfloat16 keys are in a
      word.
    key: [d, w], the keys of some behaviors: float32, int8, or int32 words [d /
      2, w], the even dimensions in their low halves.
    precision: the precision of products of float32 queries, which must not be
      rounded.
  """
  total: Any = sum(
    jax.lax.dot_general(
      query,
      own.astype(query.dtype),
      (((1,), (0,)), ((), ())),
      precision=precision if query.dtype == jnp.float32 else None,
      preferred_element_type=jnp.float32,
    )
    for query, own in zip(queries, widened(key, len(queries)), strict=True)
  )
  return total


def widened(key: Any, parts: int) -> list[Any]:
  """Returns keys as float32, one array for each query.

  Args:
    key: float32 or int8; or int32 words, two bfloat16 in each, those of the
      even dimensions in the low halves.
    parts: how many keys are in one number.
  """
  if parts == 1:
    return [key.astype(jnp.float32)]
  halves = key << 16, key & -(1 << 16)
  return [jax.lax.bitcast_convert_type(half, jnp.float32) for half in halves]


def rank(
  products: Float[Array, '*rows w'], bias: Float[Array, '*broadcast w']
) -> Float[Array, '*rows w']:
  """Returns products plus bias: +inf for NaN, -inf wherever the bias is.

  What the product is does not matter there, be it NaN.
  """
  total = products + bias
  # Without a bias of -inf, and with one, where the product is +inf or NaN.
  otherwise = jnp.where(bias > -jnp.inf, jnp.inf, -jnp.inf)
  return jnp.where(total == total, total, otherwise)
