"""Searches by score: modules from a view and a scorer to the behaviors kept."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from dare_jax import types
from dare_jax.search import view as search_view
from dare_jax.topk import selection

Found = tuple[types.SearchResult, search_view.Attention]


@dataclasses.dataclass(frozen=True)
class Ranking:
  """How a search ranks the behaviors of a view.

  Attributes:
    order: numbers [b, m, #c, l] of any type. The `top_k` visible behaviors with
      the largest are kept, of equals the most recent. The choice carries no
      gradient.
    scores: [b, m, c, l], the scores that weigh the behaviors kept; None:
      `order` does.
    aux_scores: scores [b, m, c, l] of all behaviors for the auxiliary head;
      None: `scores`.
    aux_on_kept: whether the auxiliary head attends to the behaviors kept alone.
    view: the view with the behaviors that may be kept and their distances,
      where the search changes these; None: the view that it was given.
  """

  order: Any
  scores: Float[Array, 'b m c l'] | None = None
  aux_scores: Float[Array, 'b m c l'] | None = None
  aux_on_kept: bool = False
  view: search_view.SearchView | None = None


class Search(nn.Module):
  """What a search is: `(view, scorer) -> (result, attention)`.

  The result keeps some behaviors, with the scores that weigh them; the
  attention gives the auxiliary head its scores over the whole history. A search
  says how it ranks them, in `rank`; all else is the same for all.

  Attributes:
    options: the sizes that searches need.
    learns_by_aux: whether its parameters learn from the auxiliary loss alone.
    clusters_history: whether it reads `History.clusters`.
  """

  options: search_view.SearchOptions
  learns_by_aux: ClassVar[bool] = False
  clusters_history: ClassVar[bool] = False

  def rank(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Ranking:
    """Returns how the behaviors of a view rank."""
    raise NotImplementedError

  def __call__(
    self,
    view: search_view.SearchView,
    scorer: search_view.Scorer,
    as_mask: bool = False,
  ) -> Found:
    """Returns what is kept of a view, and its attention.

    Args:
      view: what the search sees.
      scorer: gives the scores of behaviors.
      as_mask: return all behaviors, with a mask of those that are kept, in
        place of those kept alone.
    """
    ranking = self.rank(view, scorer)
    order = ranking.order
    scores = order if ranking.scores is None else ranking.scores
    if not jnp.issubdtype(order.dtype, jnp.floating):
      order = order.astype(jnp.float32)
    seen = view if ranking.view is None else ranking.view
    visible = seen.visible[:, :, None, :]
    order = jnp.broadcast_to(order, scores.shape)
    distance = None if ranking.view is None else seen.distance
    if as_mask:
      mask = selection.kept(order, visible, self.options.top_k)
      return search_view.all_places(seen, scores, mask), search_view.Attention(
        scores, mask, distance
      )
    indices, mask = selection.top_k(order, visible, self.options.top_k)
    if self.options.keep_padding:
      mask = jnp.ones_like(mask)
    result = search_view.kept(seen, scores, indices, mask)
    if ranking.aux_on_kept:
      places = [
        jax.lax.broadcasted_iota(jnp.int32, indices.shape, axis)
        for axis in range(indices.ndim - 1)
      ]
      nothing = jnp.zeros(scores.shape, bool)
      visible = nothing.at[*places, indices].set(mask)
    weighed = scores if ranking.aux_scores is None else ranking.aux_scores
    return result, search_view.Attention(weighed, visible, distance)


class ScoreSearch(Search):
  """Keeps the `top_k` behaviors with the best scores (TWIN, DARE, DIN)."""

  def rank(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Ranking:
    return Ranking(scorer(view))


class FullSearch(Search):
  """Keeps all behaviors, unranked: exact attention over the whole history."""

  def __call__(
    self,
    view: search_view.SearchView,
    scorer: search_view.Scorer,
    as_mask: bool = False,
  ) -> Found:
    del as_mask  # They always are.
    scores = scorer(view)
    visible = view.visible[:, :, None, :]
    result = search_view.all_places(view, scores, visible)
    return result, search_view.Attention(scores, visible)


class ProjectedSearch(Search):
  """SIM's soft search: a linear space of its own, with a loss of its own.

  Ranks by <W_a q, W_b k_i> / sqrt(search_dim) (arXiv 2006.05639, equation 1)
  and keeps the best `top_k`; the scorer weighs them. The choice carries no
  gradient: W_a and W_b learn from the auxiliary head, which pools the whole
  history by a softmax of these scores.
  """

  learns_by_aux: ClassVar[bool] = True

  @nn.compact
  def rank(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Ranking:
    """Ranks by scores in a search space of its own."""
    width = self.options.search_dim
    query = nn.Dense(width, use_bias=False, name='target')(view.query)
    keys = nn.Dense(width, use_bias=False, name='behavior')(view.keys)
    own = jnp.einsum('bmcd,bld->bmcl', query * width**-0.5, keys)
    return Ranking(own, scorer(view), aux_scores=own)


class CategorySearch(Search):
  """Hard search: the most recent behaviors of the target's category.

  SIM's hard search (arXiv 2006.05639, section 3.2). Where fewer than `top_k`
  match, the most recent others fill up, as in the published DARE code, but
  never padding. The auxiliary head attends to the behaviors kept.
  """

  def rank(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> Ranking:
    """Ranks behaviors of the target's category first, then by recency."""
    target = view.target_ids['category'][..., None]
    same = view.history.ids['category'][:, None, None, :] == target
    length = same.shape[-1]
    recency = jax.lax.broadcasted_iota(jnp.int32, same.shape, same.ndim - 1)
    order = jnp.where(same & view.visible[:, :, None, :], length, 0) + recency
    return Ranking(order, scorer(view), aux_on_kept=True)
