"""Users' attention keys, kept ready for searching.

The keys of a history hold items and categories but no positions: what a
position adds to a score is one vector for all targets. So a new behavior
changes one column and makes nothing else stale. Keys are of one version of the
attention tables: keep that version beside a state, and build it anew when the
tables change.

Columns are a ring of `capacity` slots, l for short. Keys lie as [b, d, l], each
dimension of all behaviors in one run, which XLA's CPU backend reads at the
speed of memory, whatever their precision.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import types
from dare_jax.search import selection

PRECISIONS = ('float32', 'bfloat16', 'int8')
# Scores held at once; beyond it, users and candidates are taken in turns.
_CHUNK_BYTES = 1 << 26
# Up to so many candidates, narrow keys are widened as they are read.
_FEW = 4
# Dimensions summed in one loop: with more, the compiler's loop is slower.
_UNROLL = 32
# Candidates of the exact scores for each behavior kept.
_OVERFETCH = 2


@struct.dataclass
class UserState:
  """The searchable histories of b users.

  Fields are untyped: transformations of JAX fill them with other things.

  Attributes:
    keys: float32 or int8 [b, d, l]; or uint32 [b, ceil(d / 2), l], two
      bfloat16 in a word, the even dimension in its low half.
    scale: float32 [b, l], what a behavior's integers are multiplied by; int8
      only, else None.
    exact: float32 [b, l, d], where `keys` are narrower, else None: they alone
      decide the order of the behaviors that the narrow ones let through.
    newest: int32 [b], slot of each user's most recent behavior.
    count: int32 [b], how many behaviors are there, at most the capacity.
    width: d.
    precision: one of `PRECISIONS`.
  """

  keys: Any
  scale: Any
  exact: Any
  newest: Any
  count: Any
  width: int = struct.field(pytree_node=False)
  precision: str = struct.field(pytree_node=False)

  @property
  def capacity(self) -> int:
    """Slots of a user, a multiple of `selection.GROUP`."""
    return int(self.keys.shape[-1])


def build(
  keys: Float[Array, 'b l d'],
  mask: Bool[Array, 'b l'],
  precision: str = 'float32',
) -> UserState:
  """Returns the state of histories, from `Ranker.encode_history`.

  Args:
    keys: of right-aligned histories: padding first, the most recent last.
    mask: True for behaviors.
    precision: one of `PRECISIONS`.

  Returns:
    A state of at least l slots; the last holds the most recent behavior.

  Raises:
    ValueError: an unknown precision.
  """
  if precision not in PRECISIONS:
    raise ValueError(
      f'precision={precision!r}: expected one of {", ".join(PRECISIONS)}.'
    )
  fill = -keys.shape[1] % selection.GROUP
  keys = jnp.pad(keys.astype(jnp.float32), [(0, 0), (fill, 0), (0, 0)])
  users, capacity, width = keys.shape
  columns, scale = _narrow(jnp.swapaxes(keys, 1, 2), precision)
  return UserState(
    keys=columns,
    scale=scale,
    exact=None if precision == 'float32' else keys,
    newest=jnp.full(users, capacity - 1, jnp.int32),
    count=jnp.sum(mask, axis=1, dtype=jnp.int32),
    width=width,
    precision=precision,
  )


def append(state: UserState, keys: Float[Array, 'b d']) -> UserState:
  """Returns the state with one more behavior of each user.

  Writes one column; the oldest makes room where the ring is full. In a `jit`
  that donates the state nothing else is touched.
  """
  slot = (state.newest + 1) % state.capacity
  user = jnp.arange(len(slot))
  keys = keys.astype(jnp.float32)
  column, scale = _narrow(keys[..., None], state.precision)
  new = {}
  if state.scale is not None and scale is not None:
    new['scale'] = state.scale.at[user, slot].set(scale[:, 0])
  if state.exact is not None:
    new['exact'] = state.exact.at[user, slot].set(keys)
  return dataclasses.replace(
    state,
    keys=state.keys.at[user, :, slot].set(column[..., 0]),
    newest=slot,
    count=jnp.minimum(state.count + 1, state.capacity),
    **new,
  )


def search(
  state: UserState,
  query: Float[Array, 'b c d'],
  bias_by_distance: Float[Array, ' p'],
  k: int,
) -> types.SearchResult:
  """Returns the k behaviors with the best scores for each target.

  Scores are those of `inner_product_scores`. From float32 keys the behaviors
  are those of `Ranker.search`. From narrower ones, those are ranked by float32
  scores that are among the 2 k best by narrow scores. Int8 scores are sums of
  products of integers, times the scales of behavior and target.

  Args:
    state: of the users.
    query: attention vectors of the targets.
    bias_by_distance: score of each position alone; the last stands for all
      beyond.
    k: behaviors to keep, at most the capacity.

  Returns:
    Arrays [b, 1, c, k]; `indices` are slots.
  """
  capacity = state.capacity
  query = query * state.width**-0.5
  # Runs over the positions from the oldest to the most recent, twice: where a
  # user's ring begins, so does a slice.
  back = capacity - jnp.arange(capacity, dtype=jnp.int32)
  bias = jnp.take(bias_by_distance, back, mode='clip')
  bias = jnp.concatenate([bias, bias])

  found = _in_turns(state, query, bias, k)
  indices, scores, distance = (x[:, None] for x in found)
  return types.SearchResult(
    indices=indices,
    scores=scores,
    mask=scores != -jnp.inf,
    distance=distance,
  )


def _in_turns(
  state: UserState,
  query: Float[Array, 'b c d'],
  bias: Float[Array, ' p'],
  k: int,
) -> Any:
  """Returns what `_search_users` does, with few scores in memory at once."""
  users, candidates, width = query.shape
  row = 4 * state.capacity
  most = max(1, _CHUNK_BYTES // row)
  if candidates > most:
    turns = -(-candidates // most)
    fill = turns * most - candidates
    query = jnp.pad(query, [(0, 0), (0, fill), (0, 0)])
    query = jnp.swapaxes(query.reshape(users, turns, most, width), 0, 1)
    found = jax.lax.map(lambda part: _in_turns(state, part, bias, k), query)
    return tuple(
      jnp.swapaxes(x, 0, 1).reshape(users, -1, k)[:, :candidates] for x in found
    )
  # Many candidates of narrow keys need them widened.
  of_user = row * max(candidates, width if candidates > _FEW else 1)
  most = max(1, _CHUNK_BYTES // of_user)
  if users <= most:
    return _search_users(state, query, bias, k)

  def of_one(part: tuple[UserState, Any]) -> Any:
    alone, own = jax.tree.map(lambda x: x[None], part)
    return jax.tree.map(lambda x: x[0], _search_users(alone, own, bias, k))

  return jax.lax.map(of_one, (state, query), batch_size=most)


def _search_users(
  state: UserState,
  query: Float[Array, 'b c d'],
  bias: Float[Array, ' p'],
  k: int,
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k'], Int[Array, 'b c k']]:
  """Returns slots, scores and distances of what a few users keep."""
  capacity = state.capacity
  start = (capacity - 1 - state.newest)[:, None, None]
  slot = jnp.arange(capacity, dtype=jnp.int32)[None]
  newest = state.newest[:, None]
  age = newest - slot + jnp.where(slot > newest, capacity, 0)
  visible = (age < state.count[:, None])[:, None]
  scores = _with_bias(content_scores(state, query), bias, start)
  fetch = k if state.exact is None else min(_OVERFETCH * k, capacity)
  index, best = selection.best_k(scores, visible, fetch, newest)
  distance = 1 + (newest[..., None] - index) % capacity
  if state.exact is None:
    return index, best, distance
  # Oldest first, as a selection expects it.
  order = jnp.argsort(-distance, axis=-1)
  index = jnp.take_along_axis(index, order, axis=-1)
  seen = jnp.take_along_axis(best, order, axis=-1) != -jnp.inf
  users = jnp.arange(len(index)).reshape(-1, 1, 1)
  exact = jnp.einsum('bcd,bckd->bck', query, state.exact[users, index])
  exact += jnp.take(bias, start + index)
  place, best = selection.best_k(exact, seen, k)
  index = jnp.take_along_axis(index, place, axis=-1)
  return index, best, 1 + (newest[..., None] - index) % capacity


def _with_bias(
  content: Float[Array, 'b c l'], bias: Float[Array, ' p'], start: Any
) -> Float[Array, 'b c l']:
  """Returns scores of content and position.

  A slice for each user is read one number at a time, so a slice for all is
  taken where rings begin alike: in states just built or appended to together.
  """
  one = lambda i: jax.lax.dynamic_slice(bias, (i,), content.shape[-1:])
  each = lambda: content + jax.vmap(one)(start[:, 0, 0])[:, None]
  if len(content) == 1:
    return each()
  alike = jnp.all(start == start[:1])
  return jax.lax.cond(
    alike, lambda: content + one(start[0, 0, 0])[None, None], each
  )


def _narrow(
  columns: Float[Array, 'b d l'], precision: str
) -> tuple[Any, Float[Array, 'b l'] | None]:
  """Returns keys as they are stored, and their scales."""
  if precision == 'int8':
    return _quantize(columns)
  if precision == 'bfloat16':
    columns = jnp.pad(columns, [(0, 0), (0, columns.shape[1] % 2), (0, 0)])
    half = columns.astype(jnp.bfloat16)
    bits = jax.lax.bitcast_convert_type(half, jnp.uint16).astype(jnp.uint32)
    return bits[:, 0::2] | (bits[:, 1::2] << 16), None
  return columns, None


def _quantize(
  columns: Float[Array, 'b d n'],
) -> tuple[Any, Float[Array, 'b n']]:
  """Returns int8 in -127 to 127, and what they are to be multiplied by."""
  scale = jnp.max(jnp.abs(columns), axis=1) / 127
  whole = jnp.round(columns / jnp.where(scale > 0, scale, 1)[:, None])
  return whole.astype(jnp.int8), scale


def content_scores(
  state: UserState, query: Float[Array, 'b c d']
) -> Float[Array, 'b c l']:
  """Returns <q, k> of all slots, as the precision of the keys gives it."""
  if state.scale is None:
    return _products(query, state.keys, state.width)
  whole, scale = _quantize(jnp.swapaxes(query, 1, 2))
  # Sums of integers below 2^24: exact in float32 as well, up to d = 1040.
  dots = _products(jnp.swapaxes(whole, 1, 2), state.keys, state.width)
  return dots * scale[..., None] * state.scale[:, None]


def _products(query: Any, columns: Any, width: int) -> Float[Array, 'b c l']:
  """Returns <q, k>: a matrix product, or a sum that widens keys on the way.

  One target against short rows of float32 keys is a sum, too: many small
  products cost calls.
  """
  alone = query.shape[1] == 1 and width <= _UNROLL
  if columns.dtype == jnp.float32 and not alone:
    return jnp.einsum('bcd,bdl->bcl', query, columns)
  if query.shape[1] > _FEW:
    wide = jnp.stack([_wide(columns, i) for i in range(width)], axis=1)
    wide, query = wide.astype(jnp.float32), query.astype(jnp.float32)
    return jnp.einsum('bcd,bdl->bcl', query, wide)
  kind = jnp.int32 if columns.dtype == jnp.int8 else jnp.float32
  query = query.astype(kind)
  total = jnp.zeros((), kind)
  for first in range(0, width, _UNROLL):
    # Four sums: an addition waits for the one before it.
    sums = [jnp.zeros((), kind)] * 4
    for i in range(first, min(first + _UNROLL, width)):
      product = query[:, :, i, None] * _wide(columns, i)[:, None].astype(kind)
      sums[i % 4] = sums[i % 4] + product
    total = total + (sums[0] + sums[1] + sums[2] + sums[3])
    total = jax.lax.optimization_barrier(total)
  return total.astype(jnp.float32)


def _wide(columns: Any, dimension: int) -> Any:
  """Returns one dimension of narrow keys [b, l]: integers, or floats."""
  if columns.dtype == jnp.int8:
    return columns[:, dimension].astype(jnp.int32)
  if columns.dtype == jnp.float32:
    return columns[:, dimension]
  word = columns[:, dimension // 2]
  bits = word & jnp.uint32(0xFFFF0000) if dimension % 2 else word << 16
  return jax.lax.bitcast_convert_type(bits, jnp.float32)
