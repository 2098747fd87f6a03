"""Exact top-k with recency as the tie-breaker, without sorting.

In a long row the k best lie in at most k groups of neighbours, those with the
best maxima: one pass finds the maxima, and only the members of k groups are
ranked. Equal scores go to the most recent behavior, so groups and members are
always put in order from the most recent to the oldest before they are ranked:
`jax.lax.top_k` keeps the first of equals. On CPU, many rows at once are counted
instead (see `counting`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import shapes
from dare_jax.topk import counting
from dare_jax.topk import ordering
from dare_jax.topk import rows as rows_lib

GROUP = rows_lib.GROUP
# Shorter rows, and rows of few groups for their k, are ranked whole. Between
# 1,000, where groups gain nothing, and 10,000, where they do.
_LONG = 4096
_GROUPS_PER_KEPT = 4


def top_k(
  scores: Float[Array, '... l'],
  visible: Bool[Array, '... l'],
  k: int,
  newest: Int[Array, ...] | None = None,
) -> tuple[Int[Array, '... k'], Bool[Array, '... k']]:
  """Returns the k best visible behaviors, best first.

  Equal scores go to the most recent behavior. The choice carries no gradient.
  NaN scores are ranked first, equal among themselves, and are kept: a model
  that diverged shows.

  Args:
    scores: float [..., l], one score of each behavior, oldest first.
    visible: bool, broadcasts to `scores`; a behavior with False is never kept.
    k: behaviors to keep, at most l.
    newest: index of the most recent behavior where a row is a ring; broadcasts
      to the leading axes of `scores`. Before it lie older ones, back to index
      0, and further back the last index. None: the last one.

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
  index, best = best_k(scores, visible, k, newest)
  return index, best != -jnp.inf


def best_k(
  scores: Float[Array, '... l'],
  visible: Bool[Array, '... l'],
  k: int,
  newest: Int[Array, ...] | None = None,
) -> tuple[Int[Array, '... k'], Float[Array, '... k']]:
  """Returns the k best visible behaviors and their scores, best first.

  The arguments, the order and the errors are those of `top_k`.

  Returns:
    Indices int32, and scores, float32 without gradient: -inf where fewer than k
    were visible. A zero has no sign.
  """
  length = scores.shape[-1]
  scores = jax.lax.stop_gradient(scores)
  if newest is not None:
    newest = jnp.broadcast_to(newest, scores.shape[:-1])[..., None]
  lead, last = scores.shape[:-1], jnp.full(1, length - 1, jnp.int32)
  lines = lambda x: x.reshape(-1, 1, x.shape[-1])
  rows = rows_lib.Rows(
    lines(scores),
    lines(jnp.broadcast_to(visible, scores.shape)),
    lines(last if newest is None else newest),
  )
  index, best = _by_platform(rows, k, lambda: _rank(scores, visible, k, newest))
  return index.reshape(*lead, k), best.reshape(*lead, k)


def kept(
  scores: Float[Array, '... l'], visible: Bool[Array, '... l'], k: int
) -> Bool[Array, '... l']:
  """Returns which behaviors `top_k` keeps, as a mask over all of them.

  Args:
    scores: float [..., l], one score of each behavior, oldest first.
    visible: bool, broadcasts to `scores`; a behavior with False is never kept.
    k: behaviors to keep, at most l.

  Raises:
    ValueError: k is below 1 or above l.

  >>> import jax.numpy as jnp
  >>> kept(jnp.array([3.0, 1.0, 3.0, 9.0]), jnp.array([1, 1, 1, 0], bool), k=2)
  Array([ True, False,  True, False], dtype=bool)
  """
  length = scores.shape[-1]
  lines = lambda x: jnp.broadcast_to(x, scores.shape).reshape(-1, length)

  def spread() -> Bool[Array, 'r l']:
    index, mask = top_k(lines(scores), lines(visible), k)
    row = jnp.arange(len(index), dtype=jnp.int32)[:, None]
    return jnp.zeros((len(index), length), bool).at[row, index].set(mask)

  def counted() -> Bool[Array, 'r l']:
    order = lines(_order(scores, visible))
    newest = jnp.full((len(order), 1), length - 1, jnp.int32)
    return counting.are_kept(order, newest, k) & (order > ordering.NOTHING)

  rows = scores.size // length
  if length > counting.WHOLE or not counting.suits(rows, length, k):
    found = spread()
  else:
    found = jax.lax.platform_dependent(cpu=counted, default=spread)
  return found.reshape(scores.shape)


def best_of_rows(
  rows: rows_lib.Rows, k: int
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k']]:
  """Returns what `best_k` does of their scores.

  Raises:
    ValueError: k is below 1 or above their length.
  """

  def ranked() -> Any:
    newest = jnp.broadcast_to(rows.newest, (*rows.content.shape[:-1], 1))
    return _rank(rows.scores(), rows.visible, k, newest)

  index, best = _by_platform(rows, k, ranked)
  lead = rows.content.shape[:-1]
  return index.reshape(*lead, k), best.reshape(*lead, k)


def _by_platform(
  rows: rows_lib.Rows, k: int, ranked: Callable[[], Any]
) -> tuple[Any, Any]:
  """Chooses by counting where that is faster; shapes are those of either."""
  if not shapes.are_known(rows.count, rows.length):
    return ranked()
  if not 1 <= k <= rows.length:
    raise ValueError(
      f'top_k={k}: expected 1 to the history length, {rows.length}; lower'
      ' model.top_k, raise data.history_length, or pad the histories.'
    )
  if not counting.suits(rows.count, rows.length, k):
    return ranked()
  flat = lambda x: x.reshape(-1, k)
  return jax.lax.platform_dependent(
    cpu=lambda: counting.best_k(rows, k),
    default=lambda: jax.tree.map(flat, ranked()),
  )


def best_of(
  scores: Float[Array, '... n'], age: Int[Array, '... n'], k: int
) -> tuple[Int[Array, '... k'], Float[Array, '... k']]:
  """Returns indices and scores as `best_k`, of few behaviors in any order.

  Args:
    scores: float [..., n], one score of each behavior chosen before; -inf is
      never kept.
    age: int [..., n], distinct in a row; of equal scores the one of the least
      age is kept.
    k: behaviors to keep, at most n.
  """
  n = scores.shape[-1]
  order = ordering.order_of(scores).reshape(-1, n)
  age = jnp.broadcast_to(age, scores.shape).reshape(-1, n)
  place = jnp.broadcast_to(_count(n, 2), order.shape)

  def sort() -> tuple[Any, Any]:
    kept = jax.lax.sort((-order, age, place), num_keys=2)
    return kept[2][:, :k], -kept[0][:, :k]

  if counting.suits(len(order), n, n):
    kept = jax.lax.platform_dependent(
      cpu=lambda: counting.ranked(place, order, age, k), default=sort
    )
  else:
    kept = sort()
  index, order = (x.reshape(*scores.shape[:-1], k) for x in kept)
  return index, ordering.score_of(order)


def sharded_top_k(
  scores: Float[Array, '... l'],
  visible: Bool[Array, '... l'],
  k: int,
  axis_name: str,
) -> tuple[Int[Array, '... k'], Bool[Array, '... k']]:
  """Returns the k best of a history split over devices, for `shard_map`.

  The devices along `axis_name`, in order, hold equal parts of each history,
  the oldest part first. Each finds its own k best; those alone, k scores and k
  indices a device, are sent, never the scores of all.

  Args:
    scores: float [..., l], one score of each behavior that this device holds,
      oldest first.
    visible: bool, broadcasts to `scores`; a behavior with False is never kept.
    k: behaviors to keep in all; each device has as many or more.
    axis_name: the mesh axis over which the behaviors are split.

  Returns:
    As `top_k` of the whole, on every device; indices count from the oldest
    behavior of the whole.
  """
  index, best = best_k(scores, visible, k)
  index = index + jax.lax.axis_index(axis_name) * scores.shape[-1]
  # Newest device first, so that the first of equals is the most recent.
  best = jax.lax.all_gather(best, axis_name)[::-1]
  index = jax.lax.all_gather(index, axis_name)[::-1]
  best = jnp.moveaxis(best, 0, -2).reshape(*scores.shape[:-1], -1)
  index = jnp.moveaxis(index, 0, -2).reshape(*scores.shape[:-1], -1)
  best, place = jax.lax.top_k(best, k)
  return jnp.take_along_axis(index, place, axis=-1), best != -jnp.inf


def _count(n: shapes.Size, ndim: int) -> Int[Array, '... n']:
  """Returns 0 to n - 1 along the last of `ndim` axes."""
  return jnp.arange(n, dtype=jnp.int32).reshape(*(1,) * (ndim - 1), n)


def _order(
  scores: Float[Array, ...], visible: Bool[Array, ...]
) -> Int[Array, ...]:
  """Returns int32 that compare as scores rank, those not visible last."""
  return jnp.where(visible, ordering.order_of(scores), ordering.NOTHING)


def _rank(
  scores: Float[Array, '... l'],
  visible: Bool[Array, '... l'],
  k: int,
  newest: Int[Array, '... 1'] | None,
) -> tuple[Int[Array, '... k'], Float[Array, '... k']]:
  """The k best by `jax.lax.top_k`."""
  length = scores.shape[-1]
  if not shapes.are_known(*scores.shape):
    return _rank_all(scores, visible, k, newest)
  if length < _LONG or length < _GROUPS_PER_KEPT * GROUP * k:
    return _rank_all(scores, visible, k, newest)
  return _rank_groups(scores, visible, k, newest)


def _rank_all(
  scores: Float[Array, '... l'],
  visible: Bool[Array, '... l'],
  k: int,
  newest: Int[Array, '... 1'] | None,
) -> tuple[Int[Array, '... k'], Float[Array, '... k']]:
  """The k best of whole rows."""
  length = scores.shape[-1]
  if newest is None:
    shown = ordering.score_of(_order(scores, visible))
    best, age = jax.lax.top_k(shown[..., ::-1], k)
    return length - 1 - age, best
  order = (newest - _count(length, scores.ndim)) % length
  shown = jnp.take_along_axis(_order(scores, visible), order, axis=-1)
  best, age = jax.lax.top_k(ordering.score_of(shown), k)
  return (newest - age) % length, best


def _rank_groups(
  scores: Float[Array, '... l'],
  visible: Bool[Array, '... l'],
  k: int,
  newest: Int[Array, '... 1'] | None,
) -> tuple[Int[Array, '... k'], Float[Array, '... k']]:
  """The k best of the k groups with the best maxima.

  A behavior outside those groups is beaten by k others, one in each. In a ring
  the group of the most recent behavior begins with the most recent and ends
  with the oldest ones, so it counts as two, the first and the last.
  """
  length = scores.shape[-1]
  lead = scores.shape[:-1]
  fill = -length % GROUP
  if fill and newest is not None:
    raise ValueError(f'a ring of {length}: expected a multiple of {GROUP}.')
  # Filled up at the old end, so that groups stay in order of age.
  edge = [(0, 0)] * (scores.ndim - 1) + [(fill, 0)]
  scores = jnp.pad(scores, edge) if fill else scores
  edge = [(0, 0)] * (visible.ndim - 1) + [(fill, 0)]
  visible = jnp.pad(visible, edge) if fill else visible
  groups = (length + fill) // GROUP
  scores = scores.reshape(*lead, groups, GROUP)
  visible = visible.reshape(*visible.shape[:-1], groups, GROUP)
  maxima = jnp.max(_order(scores, visible), axis=-1)
  if newest is None:
    newest = jnp.full((*lead, 1), length + fill - 1, jnp.int32)
    ranked = maxima[..., ::-1]
  else:
    ranked = _by_age(scores, visible, maxima, newest)
  _, age = jax.lax.top_k(ordering.score_of(ranked), k)
  age = jnp.sort(age, axis=-1)  # Newest group first.
  group = (newest // GROUP - age) % groups
  slot = _count(GROUP, scores.ndim)[..., ::-1]
  index = group[..., None] * GROUP + slot
  is_after = index > newest[..., None]
  here = ~((age == 0)[..., None] & is_after)
  here &= ~((age == groups)[..., None] & ~is_after)
  members = _members(scores, visible, group)[..., ::-1]
  members = jnp.where(here, members, ordering.NOTHING).reshape(*lead, k * GROUP)
  best, place = jax.lax.top_k(ordering.score_of(members), k)
  index = jnp.take_along_axis(index.reshape(members.shape), place, axis=-1)
  # Where nothing was left to keep, the place may be one of the filling.
  return jnp.maximum(index - fill, 0), best


def _members(
  scores: Float[Array, '... n g'],
  visible: Bool[Array, '... n g'],
  group: Int[Array, '... k'],
) -> Int[Array, '... k g']:
  """Returns the order of the members of some groups."""
  group = group[..., None]
  visible = jnp.broadcast_to(visible, scores.shape)
  return _order(
    jnp.take_along_axis(scores, group, axis=-2),
    jnp.take_along_axis(visible, group, axis=-2),
  )


def _by_age(
  scores: Float[Array, '... n g'],
  visible: Bool[Array, '... n g'],
  maxima: Int[Array, '... n'],
  newest: Int[Array, '... 1'],
) -> Int[Array, '... n+1']:
  """Returns the groups' maxima of a ring, newest first, one group in two."""
  groups = maxima.shape[-1]
  split = newest // GROUP
  members = _members(scores, visible, split)[..., 0, :]
  slot = split * GROUP + _count(GROUP, members.ndim)
  first = jnp.max(jnp.where(slot <= newest, members, ordering.NOTHING), axis=-1)
  last = jnp.max(jnp.where(slot > newest, members, ordering.NOTHING), axis=-1)
  age = _count(groups, members.ndim)[..., 1:]
  between = jnp.take_along_axis(maxima, (split - age) % groups, axis=-1)
  return jnp.concatenate([first[..., None], between, last[..., None]], axis=-1)
