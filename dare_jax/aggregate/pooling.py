"""Attention weights and the pooled user interest."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

from dare_jax import types
from dare_jax.aggregate import values as value_lib


def masked_softmax(
  scores: Float[Array, '... l'], mask: Bool[Array, '... l']
) -> Float[Array, '... l']:
  """Returns softmax over the places where `mask` holds, float32.

  A place without mask has weight exactly 0 and zero gradient; a row without
  any has all weights 0.

  >>> import jax.numpy as jnp
  >>> mask = jnp.array([[True, True, False], [False, False, False]])
  >>> masked_softmax(jnp.zeros((2, 3)), mask).tolist()
  [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
  """
  scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
  peak = jnp.max(scores, axis=-1, keepdims=True, where=mask, initial=-jnp.inf)
  peak = jax.lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0.0))
  power = jnp.exp(jnp.where(mask, scores - peak, -jnp.inf))
  total = jnp.sum(power, axis=-1, keepdims=True)
  return power / jnp.where(total > 0, total, 1.0)


@dataclasses.dataclass(frozen=True)
class AggregationOptions:
  """Sizes of the aggregations; each reads what it needs.

  Attributes:
    hash_bits: bits of a hash code.
    hash_width: bits of a bucket's signature; divides `hash_bits`.
  """

  hash_bits: int = 48
  hash_width: int = 3


class Aggregation(nn.Module):
  """What an aggregation is: `(result, values, target) -> (interest, weights)`.

  Attributes:
    options: the sizes of hash codes and buckets.
    uses_scores: whether the scores of the search weigh the behaviors, and so
      learn from the prediction.
  """

  options: AggregationOptions
  uses_scores: ClassVar[bool] = True


class SoftmaxPooling(Aggregation):
  """Softmax over the behaviors kept, then their weighted sum."""

  def __call__(
    self,
    result: types.SearchResult,
    values: value_lib.Values,
    target: Float[Array, 'b m c d'],
  ) -> tuple[Float[Array, 'b m c v'], Float[Array, 'b m c k']]:
    """Returns the interest and the weights of the behaviors.

    Args:
      result: the behaviors kept and their scores.
      values: the representation vectors of the behaviors kept.
      target: the targets' content vectors; not used here.
    """
    del target
    weights = masked_softmax(result.scores, result.mask)
    return values.weigh(weights), weights
