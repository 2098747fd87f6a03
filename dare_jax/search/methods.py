"""Search methods: modules from a view and a scorer to the behaviors kept."""

from __future__ import annotations

from collections.abc import Callable

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from dare_jax import types
from dare_jax.search import selection
from dare_jax.search import view as search_view

Scorer = Callable[[search_view.SearchView], Float[Array, 'b m c l']]


class ScoreSearch(nn.Module):
  """Keeps the `top_k` behaviors with the best scores (TWIN, DARE)."""

  top_k: int

  def __call__(
    self, view: search_view.SearchView, scorer: Scorer
  ) -> types.SearchResult:
    scores = scorer(view)
    indices, mask = selection.top_k(
      scores, view.visible[:, :, None, :], self.top_k
    )
    kept = jnp.take_along_axis(scores, indices, axis=-1)
    return types.SearchResult(indices=indices, scores=kept, mask=mask)


class FullSearch(nn.Module):
  """Keeps all behaviors: exact attention over the whole history."""

  top_k: int

  def __call__(
    self, view: search_view.SearchView, scorer: Scorer
  ) -> types.SearchResult:
    scores = scorer(view)
    indices = jnp.arange(scores.shape[-1], dtype=jnp.int32)
    return types.SearchResult(
      indices=jnp.broadcast_to(indices, scores.shape),
      scores=scores,
      mask=jnp.broadcast_to(view.visible[:, :, None, :], scores.shape),
    )
