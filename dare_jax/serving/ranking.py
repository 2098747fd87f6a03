"""The k best behaviors of user states, by plain operations or by a kernel."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import shapes
from dare_jax import types
from dare_jax.search import matching as matching_lib
from dare_jax.serving import categories
from dare_jax.serving import products
from dare_jax.serving.kernels import dispatch
from dare_jax.topk import rows as rows_lib
from dare_jax.topk import selection
from dare_jax.topk import turns

# Scores held at once; beyond it, users and candidates are taken in turns.
_CHUNK_BYTES = 1 << 25
# Candidates of the exact scores for each behavior kept.
_OVERFETCH = 2
# In rows shorter than so many times as those, all are scored exactly: it takes
# less time than to choose and to gather them.
_SHORT = 16


@struct.dataclass
class Question:
  """What is asked of the states of b users: the best for c targets each.

  Fields are untyped: transformations of JAX fill them with other things.

  Attributes:
    query: float [b, c, d], attention vectors of the targets, times 1 / sqrt(d).
    bias: float [2 l], scores of the positions from the oldest to the most
      recent, twice: where a user's ring begins, so does a slice.
    matching: what the targets of one moment match, with ids [b, c].
    table: float [n, e], keys of all categories, where the state holds
      categories; else None.
    added: float [b, l], what adds to the scores of each slot for all targets;
      None: nothing.
  """

  query: Any
  bias: Any
  matching: Any
  table: Any = None
  added: Any = None

  def of_targets(self, query: Any, ids: Any) -> Question:
    """Returns the question of other targets of the same users."""
    matching = dataclasses.replace(self.matching, ids=ids)
    return dataclasses.replace(self, query=query, matching=matching)

  def of_users(self, take: Callable[[Any], Any]) -> Question:
    """Returns the question of those users that `take` takes of an array."""
    ids = jax.tree.map(take, self.matching.ids)
    found = self.of_targets(take(self.query), ids)
    return dataclasses.replace(found, added=jax.tree.map(take, self.added))


def plainly(state: Any, question: Question, k: int) -> Any:
  """Returns slots, scores and distances of what users keep, [b, c, k] each.

  Few scores are in memory at once.

  Args:
    state: the users' histories, a `user_state.UserState`.
    question: the targets.
    k: behaviors to keep.
  """
  users, candidates, width = question.query.shape
  if not shapes.are_known(users, candidates, state.capacity):
    return _search_users(state, question, k)
  table = question.table
  row = 4 * max(state.capacity, 0 if table is None else len(table))
  most = max(1, _CHUNK_BYTES // row)
  if candidates > most:
    parts = -(-candidates // most)
    fill = parts * most - candidates
    cut = lambda x: _in_parts(x, parts, most, fill)
    targets = question.query, question.matching.ids
    of_part = lambda part: plainly(state, question.of_targets(*part), k)
    found = jax.lax.map(of_part, jax.tree.map(cut, targets))
    return tuple(
      jnp.swapaxes(x, 0, 1).reshape(users, -1, k)[:, :candidates] for x in found
    )
  # Many candidates of narrow keys need them widened.
  of_user = row * max(candidates, width if candidates > products.FEW else 1)
  most = max(1, _CHUNK_BYTES // of_user)

  some = lambda take: _search_users(
    jax.tree.map(take, state), question.of_users(take), k
  )
  return turns.of_users(some, users, most)


def _in_parts(x: Any, parts: int, most: int, fill: int) -> Any:
  """Returns [b, c, ...] as [parts, b, most, ...], the last part filled up."""
  edge = [(0, 0), (0, fill)] + [(0, 0)] * (x.ndim - 2)
  split = jnp.pad(x, edge).reshape(len(x), parts, most, *x.shape[2:])
  return jnp.swapaxes(split, 0, 1)


def _search_users(
  state: Any, question: Question, k: int
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k'], Int[Array, 'b c k']]:
  """Returns slots, scores and distances of what a few users keep."""
  short = state.exact is not None and _is_short(state, k)
  score = _exact_scores if short else content_scores
  content = score(state, question.query, question.table)
  matching, added = question.matching, question.added
  rows = rows_lib.Rows(
    content,
    is_visible(state)[:, None],
    state.newest[:, None, None],
    question.bias,
    tuple(
      rows_lib.Match(
        state.match_ids[field][:, None], matching.ids[field][..., None], own
      )
      for field, own in matching.bias.items()
    ),
    None if added is None else added[:, None],
  )
  chosen = short or state.exact is None
  index, best = selection.best_of_rows(rows, k if chosen else _OVERFETCH * k)
  if chosen:
    return index, best, _distance(state, index)
  return _best_exactly(state, question, k, (index, best))


def by_kernel(
  kernel: Any, state: Any, question: Question, k: int
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k'], Int[Array, 'b c k']]:
  """Returns what `plainly` does, by a kernel.

  Args:
    kernel: one of `kernels.dispatch.KERNELS`.
    state: the users' histories, a `user_state.UserState`.
    question: the targets, without categories, matches and what is added.
    k: behaviors to keep.
  """
  capacity, bias = state.capacity, question.bias
  start = capacity - 1 - state.newest
  own = jax.vmap(lambda i: jax.lax.dynamic_slice(bias, (i,), (capacity,)))
  of_slots = jnp.where(is_visible(state), own(start), -jnp.inf)
  query, newest = question.query, state.newest
  fetch = k if state.exact is None else _OVERFETCH * k
  found = dispatch.best(
    kernel, query, state.keys, state.scale, of_slots, newest, fetch
  )
  if state.exact is None:
    return *found, _distance(state, found[0])
  return _best_exactly(state, question, k, found)


def _best_exactly(
  state: Any,
  question: Question,
  k: int,
  fetched: tuple[Int[Array, 'b c f'], Float[Array, 'b c f']],
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k'], Int[Array, 'b c k']]:
  """Returns the best of what narrow keys let through, by float32 scores."""
  index, best = fetched
  distance = _distance(state, index)
  users = jnp.arange(len(index)).reshape(-1, 1, 1)
  keys = state.exact[users, index]
  if question.table is not None:
    category = state.category[users, index]
    own = jnp.take(question.table, category, axis=0, mode='clip')
    keys = jnp.concatenate([keys, own], axis=-1)
  exact = jnp.einsum(
    'bcd,bckd->bck', question.query, keys, precision=products.EXACT
  )
  matching = question.matching
  for field, own in matching.bias.items():
    same = (
      state.match_ids[field][users, index] == matching.ids[field][..., None]
    )
    exact += jnp.where(same, own, jnp.zeros_like(own))
  if question.added is not None:
    exact += question.added[users, index]
  start = (state.capacity - 1 - state.newest)[:, None, None]
  exact += jnp.take(question.bias, start + index)
  exact = jnp.where(best == -jnp.inf, best, exact)
  place, best = selection.best_of(exact, distance, k)
  take = lambda x: jnp.take_along_axis(x, place, axis=-1)
  return take(index), best, take(distance)


def count(
  state: Any, matching: matching_lib.Matching
) -> dict[str, types.Matches]:
  """Returns field -> the matches in all that each user's state shows.

  Args:
    state: the users' histories, a `user_state.UserState`.
    matching: ids [b, 1, c] of the targets.
  """
  age = jnp.arange(state.capacity, dtype=jnp.int32)[::-1]
  slot = (state.newest[:, None] - age[None]) % state.capacity
  end = jnp.full_like(slot[:, :1], state.capacity)
  made = {}
  for field, targets in matching.ids.items():
    ids = jnp.take_along_axis(state.match_ids[field], slot, axis=1)
    made[field] = matching_lib.count(
      ids, targets, end - state.count[:, None], end
    )
  return made


def suits_kernels(state: Any, query: Any, k: int) -> bool:
  """Returns whether kernels take such a state and such targets."""
  if not shapes.are_known(*query.shape[:2], state.capacity):
    return False
  if not 1 <= k <= state.capacity:
    return False  # Which `plainly` refuses.
  return not (state.exact is not None and _is_short(state, k))


def _is_short(state: Any, k: int) -> bool:
  """Returns whether all behaviors are scored exactly at once."""
  return state.capacity < _SHORT * _OVERFETCH * k


def is_visible(state: Any) -> Bool[Array, 'b l']:
  """Returns which slots hold behaviors that are shown."""
  slot = jnp.arange(state.capacity, dtype=jnp.int32)[None]
  age = rows_lib.age(slot, state.newest[:, None], state.capacity)
  return age < state.count[:, None]


def _distance(state: Any, index: Int[Array, 'b c f']) -> Int[Array, 'b c f']:
  """Returns how far back slots lie; 1 is the most recent behavior."""
  return 1 + (state.newest[:, None, None] - index) % state.capacity


def content_scores(
  state: Any,
  query: Float[Array, 'b c d'],
  category_keys: Float[Array, 'n e'] | None = None,
) -> Float[Array, 'b c l']:
  """Returns <q, k> of all slots, as the precision of the keys gives it.

  The part of categories is float32.
  """
  if category_keys is None:
    return products.scores(query, state.keys, state.scale)
  if state.scale is None and not categories.are_looked_up(
    query.shape[1], category_keys
  ):
    # One product is faster than the sum of two.
    items = products.widened(state.keys, state.width)
    rest = categories.columns(state.category, category_keys)
    return products.scores(query, jnp.concatenate([items, rest], 1), None)
  own, rest = jnp.split(query, [state.width], axis=-1)
  scores = products.scores(own, state.keys, state.scale)
  return scores + categories.scores(rest, state.category, category_keys)


def _exact_scores(
  state: Any,
  query: Float[Array, 'b c d'],
  category_keys: Float[Array, 'n e'] | None,
) -> Float[Array, 'b c l']:
  """Returns <q, k> of all slots, from the float32 keys beside narrow ones."""
  own, rest = jnp.split(query, [state.width], axis=-1)
  scores = jnp.einsum(
    'bcd,bld->bcl', own, state.exact, precision=products.EXACT
  )
  if category_keys is None:
    return scores
  return scores + categories.scores(rest, state.category, category_keys)
