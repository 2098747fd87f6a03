"""The best of what a search has found, in order."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dare_jax import types
from dare_jax.topk import selection


def best(result: types.SearchResult, keep: int) -> tuple[jax.Array, jax.Array]:
  """Returns the `keep` behaviors that a search scores highest, best first.

  Equal scores go to the most recent behavior.

  Args:
    result: the result of a search.
    keep: number of behaviors to return at most; a search that kept fewer gives
      fewer.

  Returns:
    int [b, m, c, k], indices into the window; and bool [b, m, c, k], False
    where nothing more was found.
  """
  order = jnp.argsort(result.indices, axis=-1)  # Oldest first, for `top_k`.
  scores, mask, indices = (
    jnp.take_along_axis(array, order, axis=-1)
    for array in (result.scores, result.mask, result.indices)
  )
  best, is_there = selection.top_k(scores, mask, min(keep, scores.shape[-1]))
  return jnp.take_along_axis(indices, best, axis=-1), is_there
