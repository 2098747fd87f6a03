"""Exact top-k with recency as the tie-breaker."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int


def top_k(
  scores: Float[Array, '... l'], visible: Bool[Array, '... l'], k: int
) -> tuple[Int[Array, '... k'], Bool[Array, '... k']]:
  """Returns the k best visible behaviors, best first.

  Equal scores go to the most recent behavior (the highest index). The choice
  carries no gradient. NaN scores are ranked first, as `jax.lax.top_k` does.

  Args:
    scores: of all behaviors, oldest first; float32 is fastest on CPU.
    visible: broadcasts to `scores`; False is never kept.
    k: behaviors to keep, at most l.

  Returns:
    Indices int32, and a mask that is False where fewer than k were visible
    (the index there is that of some invisible behavior).

  Raises:
    ValueError: k is below 1 or above l.

  >>> import jax.numpy as jnp
  >>> index, mask = top_k(
  ...     jnp.array([3.0, 1.0, 3.0, 9.0]), jnp.array([1, 1, 1, 0], bool), k=2)
  >>> index.tolist(), mask.tolist()
  ([2, 0], [True, True])
  """
  length = scores.shape[-1]
  if not 1 <= k <= length:
    raise ValueError(
      f'top_k={k}: expected 1 to the history length, {length}; lower'
      ' model.top_k or raise data.history_length.'
    )
  scores = jax.lax.stop_gradient(scores).astype(jnp.float32)
  # -0.0 would rank below 0.0, its equal.
  scores = jnp.where(scores == 0, 0.0, scores)
  scores = jnp.where(visible, scores, -jnp.inf)
  # lax.top_k keeps the lowest index of equals: newest first makes it ours.
  best, index = jax.lax.top_k(scores[..., ::-1], k)
  return length - 1 - index, best > -jnp.inf
