"""Attention weights and the pooled user interest."""

from __future__ import annotations

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float


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


def weighted_sum(
  weights: Float[Array, 'b m c k'], values: Float[Array, 'b m c k d']
) -> Float[Array, 'b m c d']:
  """Returns h = sum_i w_i r_i (arXiv 2410.02604, equation 2).

  >>> import jax.numpy as jnp
  >>> weights = jnp.array([0.25, 0.75]).reshape(1, 1, 1, 2)
  >>> weighted_sum(weights, jnp.eye(2).reshape(1, 1, 1, 2, 2)).tolist()
  [[[[0.25, 0.75]]]]
  """
  return jnp.einsum('bmck,bmckd->bmcd', weights, values)


class SoftmaxPooling(nn.Module):
  """Softmax over the behaviors kept, then their weighted sum."""

  def __call__(
    self,
    scores: Float[Array, 'b m c k'],
    mask: Bool[Array, 'b m c k'],
    values: Float[Array, 'b m c k d'],
  ) -> Float[Array, 'b m c d']:
    return weighted_sum(masked_softmax(scores, mask), values)
