"""Scaled inner-product scores, the attention of TWIN and DARE."""

from __future__ import annotations

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from dare_jax.search import view as search_view


def inner_product_scores(
  query: Float[Array, 'b m c d'],
  keys: Float[Array, 'b l d'],
  time_bias: Float[Array, 'b m #c l'],
) -> Float[Array, 'b m c l']:
  """Returns <q, k_i> / sqrt(d) + bias of i's position.

  The content part is scaled by its own width and the time term, added by the
  caller's `time_bias`, by its own, as the published code does; the paper
  (arXiv 2410.02604, equation 3) writes a single scale.

  Args:
    query: attention vectors of the targets, without their time part.
    keys: attention vectors of the behaviors, without their time part.
    time_bias: <time vector of the target, of the position> / sqrt(time width).

  Returns:
    Scores of all behaviors, padding included, float32 or wider.

  >>> import jax.numpy as jnp
  >>> query, keys = jnp.ones((1, 1, 1, 4)), jnp.ones((1, 3, 4))
  >>> inner_product_scores(query, keys, jnp.zeros((1, 1, 1, 3))).tolist()
  [[[[2.0, 2.0, 2.0]]]]
  """
  # XLA for GPUs would take the product's factor, a slice of a batch reshaped,
  # into one kernel, whose tiles it then finds no sizes for.
  query = jax.lax.optimization_barrier(query * query.shape[-1] ** -0.5)
  content = jnp.einsum(
    'bmcd,bld->bmcl',
    query,
    keys,
    preferred_element_type=jnp.promote_types(keys.dtype, jnp.float32),
  )
  return content + time_bias


class DotScorer(nn.Module):
  """Scores of a view by scaled inner products; no parameters."""

  def __call__(self, view: search_view.SearchView) -> Float[Array, 'b m c l']:
    return inner_product_scores(view.query, view.keys, view.time_bias())


class TimeTwiceScorer(nn.Module):
  """The published code's scores in hard search, which count time twice.

  (<q, k_i> + <q_time, k_time>) / sqrt(d + d_time) + <q_time, k_time> /
  sqrt(d_time): once within all dimensions, once by itself. A quirk, here to
  compare with that code.
  """

  def __call__(self, view: search_view.SearchView) -> Float[Array, 'b m c l']:
    bias = view.time_bias()
    width = view.query.shape[-1]
    shrink = (width / (width + view.time_dim)) ** 0.5
    again = (view.time_dim / (width + view.time_dim)) ** 0.5
    scores = inner_product_scores(
      view.query * shrink, view.keys, jnp.zeros_like(bias)
    )
    return scores + bias * (1.0 + again)
