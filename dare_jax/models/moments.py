"""What a moment of a window sees, and how far back it lies."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Int

from dare_jax import types


def distance(end: Int[Array, 'b m'], length: int) -> Int[Array, 'b m l']:
  """Returns how far back each behavior lies; 1 is the most recent.

  Those at or past the moment's end: 0.
  """
  index = jnp.arange(length, dtype=end.dtype)
  return jnp.maximum(end[:, :, None] - index[None, None, :], 0)


def visible(
  history: types.History,
  end: Int[Array, 'b m'],
  start: Int[Array, 'b m'] | None = None,
) -> Bool[Array, 'b m l']:
  """Returns where a moment has a real behavior from its start to its end."""
  index = jnp.arange(history.mask.shape[1], dtype=end.dtype)[None, None, :]
  seen = history.mask[:, None, :] & (index < end[:, :, None])
  return seen if start is None else seen & (index >= start[:, :, None])
