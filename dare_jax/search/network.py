"""DIN's scores: a small network on target and behavior."""

from __future__ import annotations

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from dare_jax import layers
from dare_jax.search import view as search_view


class NetworkScorer(nn.Module):
  """Scores of a view by DIN's activation unit (arXiv 1706.06978, section 4.3).

  s_i = MLP([q, k_i, q - k_i, q * k_i]) / d, with one hidden layer and PReLU,
  in the form in which DARE compares it (arXiv 2410.02604): a softmax follows,
  and the search keeps the best.

  The first layer is applied by parts: what depends on the target or on the
  behavior alone is computed once for each; only the product needs the pair.
  """

  hidden: int = 36

  @nn.compact
  def __call__(self, view: search_view.SearchView) -> Float[Array, 'b m c l']:
    query, keys = view.query, view.keys
    width = query.shape[-1]
    first = layers.Affine(4 * width, self.hidden, name='hidden')
    of_query, of_key, of_difference, of_product = jnp.split(first.kernel, 4)
    target = query @ (of_query + of_difference) + jnp.expand_dims(
      first.bias, (0, 1, 2)
    )
    behavior = keys @ (of_key - of_difference)
    pair = jnp.einsum(
      'bld,bmcdh->bmclh', keys, query[..., None] * of_product[None, None, None]
    )
    x = pair + target[:, :, :, None, :] + behavior[:, None, None, :, :]
    x = nn.PReLU(negative_slope_init=0.1, name='slope')(x)
    scores = layers.widen(nn.Dense(1, name='score')(x)[..., 0])
    return scores / width + view.time_bias()
