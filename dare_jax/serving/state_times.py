"""How long ago the behaviors were that a search of a state found."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Int

from dare_jax import types
from dare_jax.search import gaps


def add(
  state: Any, result: types.SearchResult, now: Int[Array, ' b']
) -> types.SearchResult:
  """Returns a result with what a model with real time reads of it.

  Args:
    state: a `user_state.UserState` that holds times.
    result: the result of a search of the state, [b, 1, c, k].
    now: the moments, as the times of the state.
  """
  gap = gaps.between(now[:, None], state.time)[:, 0]
  user = jnp.arange(gap.shape[0])
  since = jnp.where(state.count > 0, gap[user, state.newest], -1)
  users = user[:, None, None]
  matches = {}
  for field, found in result.matches.items():
    back = found.distance - 1
    slot = (state.newest[:, None, None] - back) % state.capacity
    own = jnp.where(found.count > 0, gap[users, slot], -1)
    matches[field] = dataclasses.replace(found, gap=own)
  return dataclasses.replace(
    result,
    matches=matches,
    gap=gap[users[..., None], result.indices],
    since_last=since[:, None],
  )
