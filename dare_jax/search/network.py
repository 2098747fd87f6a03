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

  For one target the first layer is linear in the behavior: its kernel is folded
  with the target first, so that a pair costs d products for each hidden unit in
  place of 4 d, and nothing 4 d wide is made. The behaviors come last, which
  keeps what follows in long runs of memory.
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
    of_behavior = query[..., None, :] * jnp.expand_dims(
      of_product.T, (0, 1, 2)
    ) + jnp.expand_dims((of_key - of_difference).T, (0, 1, 2))
    x = jnp.einsum('bmchd,bld->bmchl', of_behavior, keys) + target[..., None]
    x = nn.PReLU(negative_slope_init=0.1, name='slope')(x)
    last = layers.Affine(self.hidden, 1, name='score')
    weights = jnp.expand_dims(last.kernel, (0, 1, 2))
    scores = layers.widen(jnp.sum(x * weights, axis=-2) + last.bias[0])
    return scores / width + view.time_bias()
