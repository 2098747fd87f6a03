"""Searches by score: modules from a view and a scorer to the behaviors kept."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from dare_jax import types
from dare_jax.search import view as search_view
from dare_jax.topk import selection

Found = tuple[types.SearchResult, search_view.Attention]


class Search(nn.Module):
  """What a search is: `(view, scorer) -> (result, attention)`.

  The result keeps some behaviors, with the scores that weigh them; the
  attention gives the auxiliary head its scores over the whole history.

  Attributes:
    options: sizes.
    learns_by_aux: whether its parameters learn from the auxiliary loss alone.
    clusters_history: whether it reads `History.clusters`.
  """

  options: search_view.SearchOptions
  learns_by_aux: ClassVar[bool] = False
  clusters_history: ClassVar[bool] = False


class ScoreSearch(Search):
  """Keeps the `top_k` behaviors with the best scores (TWIN, DARE, DIN)."""

  def __call__(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Found:
    scores = scorer(view)
    indices, mask = selection.top_k(
      scores, view.visible[:, :, None, :], self.options.top_k
    )
    if self.options.keep_padding:
      mask = jnp.ones_like(mask)
    result = search_view.kept(view, scores, indices, mask)
    return result, search_view.attention(view, scores)


class FullSearch(Search):
  """Keeps all behaviors: exact attention over the whole history."""

  def __call__(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Found:
    scores = scorer(view)
    shape = scores.shape
    indices = jnp.arange(shape[-1], dtype=jnp.int32)
    result = types.SearchResult(
      indices=jnp.broadcast_to(indices, shape),
      scores=scores,
      mask=jnp.broadcast_to(view.visible[:, :, None, :], shape),
      distance=jnp.broadcast_to(view.distance[:, :, None, :], shape),
      everything=True,
    )
    return result, search_view.attention(view, scores)


class ProjectedSearch(Search):
  """SIM's soft search: a linear space of its own, with a loss of its own.

  Ranks by <W_a q, W_b k_i> / sqrt(search_dim) (arXiv 2006.05639, equation 1)
  and keeps the best `top_k`; the scorer weighs them. The choice carries no
  gradient: W_a and W_b learn from the auxiliary head, which pools the whole
  history by a softmax of these scores.
  """

  learns_by_aux: ClassVar[bool] = True

  @nn.compact
  def __call__(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Found:
    width = self.options.search_dim
    query = nn.Dense(width, use_bias=False, name='target')(view.query)
    keys = nn.Dense(width, use_bias=False, name='behavior')(view.keys)
    own = jnp.einsum('bmcd,bld->bmcl', query * width**-0.5, keys)
    visible = view.visible[:, :, None, :]
    indices, mask = selection.top_k(own, visible, self.options.top_k)
    result = search_view.kept(view, scorer(view), indices, mask)
    return result, search_view.attention(view, own)


class CategorySearch(Search):
  """Hard search: the most recent behaviors of the target's category.

  SIM's hard search (arXiv 2006.05639, section 3.2). Where fewer than `top_k`
  match, the most recent others fill up, as in the published DARE code, but
  never padding. The auxiliary head attends to the behaviors kept.
  """

  def __call__(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Found:
    target = view.target_ids['category'][..., None]
    same = view.history.ids['category'][:, None, None, :] == target
    visible = view.visible[:, :, None, :]
    length = same.shape[-1]
    recency = jax.lax.broadcasted_iota(jnp.int32, same.shape, same.ndim - 1)
    rank = jnp.where(same & visible, length, 0) + recency
    rank = rank.astype(jnp.float32)
    indices, mask = selection.top_k(rank, visible, self.options.top_k)
    scores = scorer(view)
    if self.options.keep_padding:
      mask = jnp.ones_like(mask)
    result = search_view.kept(view, scores, indices, mask)
    places = [
      jax.lax.broadcasted_iota(jnp.int32, indices.shape, axis)
      for axis in range(indices.ndim - 1)
    ]
    among = jnp.zeros(same.shape, bool).at[*places, indices].set(mask)
    return result, search_view.Attention(scores, among)
