"""Users' attention keys, kept ready for searching.

The keys of a history hold items and categories but no positions: what a
position adds to a score is one vector for all targets. So a new behavior
changes one column and makes nothing else stale. Keys are of one version of the
attention tables: keep that version beside a state, and build it anew when the
tables change.

The category's part of a score is the same for all behaviors of a category.
Where categories are few, a state need not hold that part of the keys: it holds
the category of each behavior, a target is scored against every category once,
and each behavior looks its score up. See `categories.suit`.

A model with match terms tells which behaviors have an id of the target's. For
that, a state holds ids beside the keys. A model with real time tells how long
ago each was, so that its state holds times.

A model has learned the positions of as many behaviors as it was shown. So a
state shows no more than `history_length`: however many are appended, what lies
farther back is never found.

Columns are a ring of `capacity` slots, l for short.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from flax import struct
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import shapes
from dare_jax import types
from dare_jax.search import gaps as gaps_lib
from dare_jax.search import matching as matching_lib
from dare_jax.serving import categories
from dare_jax.serving import products
from dare_jax.serving import ranking
from dare_jax.serving import state_check
from dare_jax.serving import state_times
from dare_jax.serving.kernels import dispatch
from dare_jax.topk import counting
from dare_jax.topk import selection

PRECISIONS = products.PRECISIONS
BACKENDS = dispatch.BACKENDS


@struct.dataclass
class UserState:
  """The searchable histories of b users.

  Fields are untyped: transformations of JAX fill them with other things.

  Attributes:
    keys: the narrowed keys, one column a behavior, from `products.narrow`.
    scale: float32 [b, l], factor of each int8 key; None: no int8.
    exact: float32 [b, l, d], where `keys` are narrower, else None: they alone
      decide the order of the behaviors that the narrow ones let through.
    category: integers [b, l], category of each behavior, where the keys lack
      the category's part; else None.
    newest: int32 [b], slot of each user's most recent behavior.
    count: int32 [b], how many behaviors are shown, at most `history_length`.
    width: number d of dimensions of a key.
    precision: one of `PRECISIONS`.
    history_length: how far back behaviors are shown; 1 is the most recent.
    match_ids: field -> int32 [b, l], ids of the behaviors, of a model with
      match terms.
    time: int32 [b, l], when each behavior was, of a model with real time, as
      `types.History.time`; else None.
  """

  keys: Any
  scale: Any
  exact: Any
  category: Any
  newest: Any
  count: Any
  width: int = struct.field(pytree_node=False)
  precision: str = struct.field(pytree_node=False)
  history_length: int = struct.field(pytree_node=False)
  match_ids: Any = struct.field(default_factory=dict)
  time: Any = None

  @property
  def capacity(self) -> shapes.Size:
    """Slots of a user, see `capacity_of`."""
    return self.keys.shape[-1]


def capacity_of(length: int) -> int:
  """Returns the slots of a state with some history length.

  A multiple, so that nothing is filled up when it is searched.
  """
  group = selection.GROUP
  unit = group if length <= group * counting.WHOLE else group**2
  return -(-length // unit) * unit


def build(
  keys: Float[Array, 'b l d'],
  mask: Bool[Array, 'b l'],
  precision: str = 'float32',
  category: Int[Array, 'b l'] | None = None,
  num_categories: int = 1 << 31,
  history_length: int | None = None,
  match_ids: Mapping[str, Int[Array, 'b l']] | None = None,
  time: Int[Array, 'b l'] | None = None,
) -> UserState:
  """Returns the state of histories, from `Ranker.encode_history`.

  Args:
    keys: search keys of right-aligned histories: padding first, the most recent
      behavior last.
    mask: True for behaviors, False for padding.
    precision: one of `PRECISIONS`.
    category: integers [b, l], category of each behavior, where the keys lack
      the category's part; else None.
    num_categories: upper bound of the category ids; they are stored in as few
      bytes as it fits.
    history_length: behaviors shown of each user, those appended included:
      what the model was trained with. A behavior farther back is never found.
      None: l, with the padding. There are slots for as many: a larger number
      than the model's makes the state, on purpose, find behaviors at positions
      that no step has trained.
    match_ids: field -> int [b, l], ids of the behaviors, for the model's match
      fields; None: it has none.
    time: seconds, as `types.History.time`, for a model with real time.

  Returns:
    A state of at least `history_length` slots; the last holds the most recent
    behavior.

  Raises:
    ValueError: shapes or a mask that do not fit, an unknown precision, or a
      history length that is no whole number above 0.
  """
  state_check.precision(precision, PRECISIONS)
  match_ids = dict(match_ids or {})
  state_check.histories(keys, mask, category, match_ids, time)
  if history_length is None:
    history_length = keys.shape[1]
  state_check.history_length(history_length)
  capacity = capacity_of(history_length)
  keys, mask = keys[:, -history_length:], mask[:, -history_length:]
  fill = capacity - keys.shape[1]
  keys = jnp.pad(keys.astype(jnp.float32), [(0, 0), (fill, 0), (0, 0)])
  users, _, width = keys.shape
  if category is not None:
    category = categories.stored(category[:, -history_length:], num_categories)
    category = jnp.pad(category, [(0, 0), (fill, 0)])
  in_slots = lambda values: jnp.pad(
    jnp.asarray(values[:, -history_length:], jnp.int32), [(0, 0), (fill, 0)]
  )
  columns, scale = products.narrow(jnp.swapaxes(keys, 1, 2), precision)
  return UserState(
    keys=columns,
    scale=scale,
    exact=None if precision == 'float32' else keys,
    category=category,
    newest=jnp.full(users, capacity - 1, jnp.int32),
    count=jnp.sum(mask, axis=1, dtype=jnp.int32),
    width=width,
    precision=precision,
    history_length=history_length,
    match_ids={field: in_slots(ids) for field, ids in match_ids.items()},
    time=None if time is None else in_slots(time),
  )


def append(
  state: UserState,
  keys: Float[Array, 'b d'],
  category: Int[Array, ' b'] | None = None,
  match_ids: Mapping[str, Int[Array, ' b']] | None = None,
  time: Int[Array, ' b'] | None = None,
) -> UserState:
  """Returns the state with one more behavior of each user.

  Writes one column; the oldest makes room where the ring is full. What is then
  farther back than the state's history length is not found any more. In a
  `jit` that donates the state nothing else is touched.

  Args:
    state: the histories of the users, from `build`.
    keys: search keys of the behaviors, one of each user.
    category: the category of each behavior, where the state holds categories;
      else None.
    match_ids: field -> ids of the behaviors, for the fields that the state
      holds.
    time: seconds, as `types.History.time`, where the state holds times; else
      None.

  Raises:
    ValueError: what does not fit the state.
  """
  match_ids = dict(match_ids or {})
  state_check.newest(state, keys, category, match_ids)
  state_check.times(state, time, state.newest.shape)
  slot = (state.newest + 1) % state.capacity
  user = jnp.arange(slot.shape[0])
  keys = keys.astype(jnp.float32)
  column, scale = products.narrow(keys[..., None], state.precision)
  new: dict[str, Any] = {}
  if state.scale is not None and scale is not None:
    new['scale'] = state.scale.at[user, slot].set(scale[:, 0])
  if state.exact is not None:
    new['exact'] = state.exact.at[user, slot].set(keys)
  if category is not None:
    category = categories.fitted(category, state.category.dtype)
    new['category'] = state.category.at[user, slot].set(category)
  new['match_ids'] = {
    field: state.match_ids[field].at[user, slot].set(ids)
    for field, ids in match_ids.items()
  }
  if time is not None:
    new['time'] = state.time.at[user, slot].set(time)
  return dataclasses.replace(
    state,
    keys=state.keys.at[user, :, slot].set(column[..., 0]),
    newest=slot,
    count=jnp.minimum(state.count + 1, state.history_length),
    **new,
  )


def shown(state: UserState) -> Bool[Array, 'b l']:
  """Returns which slots hold behaviors that are shown."""
  return ranking.is_visible(state)


def search(
  state: UserState,
  query: Float[Array, 'b c d'],
  bias_by_distance: Float[Array, ' p'],
  k: int,
  category_keys: Float[Array, 'n e'] | None = None,
  backend: str | None = None,
  matching: matching_lib.Matching | None = None,
  gaps: gaps_lib.GapScores | None = None,
) -> types.SearchResult:
  """Returns the k behaviors with the best scores for each target.

  Scores are those of `inner_product_scores`. From float32 keys the behaviors
  are those of `Ranker.search`. From narrower ones, those are ranked by float32
  scores that are among the 2 k best by narrow scores, or, in short rows, all
  are ranked by float32 scores. Int8 scores are sums of products of integers,
  times the scales of behavior and target. Matches and gaps add to scores of any
  precision alike.

  On TPU a Pallas kernel keeps the scores on the chip. It takes float32 queries
  to float32 keys, and rounds them to bfloat16 for narrower ones. Elsewhere, in
  short rows, with categories apart, match terms or gaps, and in programs for
  any size, scores are written to memory and chosen from.

  Args:
    state: the histories of the users, from `build`.
    query: attention vectors of the targets, the category's part last.
    bias_by_distance: score of each position alone, of distances 0 to the
      capacity or beyond: from `Ranker.encode_targets` with that length.
    k: behaviors to keep, at most the capacity; `mask` is False where fewer
      are shown.
    category_keys: key of each category, from `Ranker.encode_categories`, where
      the state holds categories; else None. A category beyond the last row is
      scored as that row.
    backend: one of `BACKENDS`; None is the platform's. A kernel that is asked
      for on another platform than its own runs there, slowly, as plain
      operations.
    matching: what the targets match, from `Ranker.encode_matches` of ids
      [b, 1, c], where the state holds ids; else None.
    gaps: the moment of each user, and what `Ranker.encode_gaps` returns, where
      the state holds times; else None.

  Returns:
    Arrays [b, 1, c, k]; `indices` are slots: see `in_windows`. Matches are
    counted over all that a state shows.

  Raises:
    ValueError: what does not fit the state, or an unknown backend.
  """
  matches = matching or matching_lib.Matching({})
  state_check.targets(
    state, query, bias_by_distance, category_keys, matches.ids
  )
  state_check.times(state, gaps and gaps.now, state.newest.shape)
  state_check.backend(backend, BACKENDS)
  query = query * query.shape[-1] ** -0.5
  added = None if gaps is None else gaps.scores(state.time)
  bias = _around(bias_by_distance, state.capacity)
  only = {field: ids[:, 0] for field, ids in matches.ids.items()}
  of_moment = dataclasses.replace(matches, ids=only)
  question = ranking.Question(query, bias, of_moment, category_keys, added)
  plain = functools.partial(ranking.plainly, k=k)
  by_kernel = functools.partial(ranking.by_kernel, k=k)
  apart = category_keys is not None or matches.bias or gaps is not None
  if apart or not ranking.suits_kernels(state, query, k):
    backend = 'plain'
  found = dispatch.choose(backend, plain, by_kernel, (state, question))
  result = _result(*(x[:, None] for x in found))
  result = dataclasses.replace(result, matches=ranking.count(state, matches))
  return result if gaps is None else state_times.add(state, result, gaps.now)


def _result(
  indices: Int[Array, 'b 1 c k'],
  scores: Float[Array, 'b 1 c k'],
  distance: Int[Array, 'b 1 c k'],
) -> types.SearchResult:
  return types.SearchResult(
    indices=indices,
    scores=scores,
    mask=scores != -jnp.inf,
    distance=distance,
  )


def _around(
  bias_by_distance: Float[Array, ' p'], capacity: shapes.Size
) -> Float[Array, ' q']:
  """Returns the bias of each position, from the oldest to the newest, twice.

  Where a user's ring begins, so does a slice of it.
  """
  back = capacity - jnp.arange(capacity, dtype=jnp.int32)
  bias = jnp.take(bias_by_distance, back)
  return jnp.concatenate([bias, bias])


def in_windows(found: types.SearchResult, length: int) -> types.SearchResult:
  """Returns what a search found, for `Ranker.score`.

  Args:
    found: the result of `search`, whose `indices` are slots of the ring.
    length: number of slots of right-aligned histories that hold all behaviors
      which the state shows: its history length will do.

  Returns:
    The result with `indices` into the histories.
  """
  return dataclasses.replace(
    found, indices=jnp.maximum(length - found.distance, 0)
  )
