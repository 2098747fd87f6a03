"""Further heads of attention over the behaviors that the search kept."""

from __future__ import annotations

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from dare_jax import aggregate
from dare_jax import types


class InterestHeads(nn.Module):
  """Adds to a user's interest what further softmaxes pool from the same rows.

  Head n weighs kept behavior i of target t by

      w_ni = softmax_i(a_n s_i + <t W_n, r_i> / sqrt(d)),

  s_i its score in the search, t and r_i the content's representation vectors,
  and the interest becomes h + sum_n g_n * sum_i w_ni r_i. Several softmaxes
  over one value are the idea of multi-head attention (arXiv 1706.03762), over
  what was found with the target as TransAct has it (arXiv 2306.00248). g_n
  starts at 0: at first the model is the one without these heads.

  Attributes:
    heads: how many, beside the one that the aggregation has.
  """

  heads: int

  @nn.compact
  def __call__(
    self,
    interest: Float[Array, 'b m c v'],
    result: types.SearchResult,
    values: aggregate.Values,
    target: Float[Array, 'b m c d'],
  ) -> Float[Array, 'b m c v']:
    """Returns the interest, of the same shape; 0 where nothing was kept.

    Args:
      interest: the interest that the aggregation gave.
      result: the behaviors kept, and their scores, which carry gradient.
      values: their representation vectors.
      target: the targets' content vectors.
    """
    width = values.content.shape[-1]
    query = nn.Dense(self.heads * width, use_bias=False, name='query')(target)
    query = query.reshape(*target.shape[:-1], self.heads, width)
    scale = self.param('score_scale', nn.initializers.ones, (self.heads,))
    gate = self.param(
      'gate', nn.initializers.zeros, (self.heads, interest.shape[-1])
    )
    match = values.products(query)
    known = jnp.einsum('n,bmck->bmcnk', scale, result.scores)
    mask = jnp.broadcast_to(result.mask[..., None, :], match.shape)
    weights = aggregate.masked_softmax(match * width**-0.5 + known, mask)
    pooled = values.weigh(weights)
    return interest + jnp.einsum('bmcnv,nv->bmcv', pooled, gate)
