"""The k best of rows whose scores lie in chunks, within a kernel for TPU.

Of a chunk one member is shown, the best of those not shown before, and the
best score that is left behind it is known. The k best of what is shown are
drawn into a list. Where a chunk of which a member was drawn has left what may
belong into the list, too, it shows the next one, until there is no such chunk.
"""

from __future__ import annotations

import functools
import math
from typing import Any
from typing import NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

LANES = 128
# Rows that show their next at once, where any must.
_ROWS = 16
# The bits of 1.0: floats from there on compare as their bits do.
_FIRST = 0x3F800000


class Shown(NamedTuple):
  """What is shown of chunks, one in each lane.

  Attributes:
    best: the best scores.
    step: which of its chunk's members each of them is.
    left: the best score of the others.
  """

  best: Float[Array, 'c 128']
  step: Int[Array, 'c 128']
  left: Float[Array, 'c 128']


class Held(NamedTuple):
  """What is held of some blocks while it is chosen from, references.

  Attributes:
    scores: [held, steps, c, 128], -inf where a member is shown no more.
    best: [c, kept + held * 128], of each row a list, then what is shown.
    order: of the same shape, numbers that compare as places do.
    left: [c, held * 128], the best score left of each chunk.
    list_best: [c, kept], the scores of a list that is being made.
    list_order: of the same shape, numbers that compare as their places do.
  """

  scores: Any
  best: Any
  order: Any
  left: Any
  list_best: Any
  list_order: Any

  @property
  def kept(self) -> int:
    """Lanes of the list."""
    return self.list_best.shape[1]

  def clear_list(self) -> None:
    """Makes the list empty."""
    shape = self.best.shape[0], self.kept
    self.best[:, : self.kept] = jnp.full(shape, -jnp.inf)

  def clear_chunks(self) -> None:
    """Makes the chunks empty."""
    empty = jnp.full(self.left.shape, -jnp.inf)
    self.best[:, self.kept :], self.left[...] = empty, empty

  def show(self, rows: Any, turn: Any, visit: Any, shown: Shown) -> None:
    """Shows members of the chunks of a block.

    Args:
      rows: which rows, a slice.
      turn: of the blocks that are held, which.
      visit: the number of the block's visit.
      shown: the members.
    """
    chunks = rows, self.chunks(turn)
    place = visit * self.scores.shape[1] + shown.step
    self.best[chunks] = shown.best
    self.order[chunks] = _order_of(place * LANES + lane(place.shape))
    self.left[rows, _lanes(turn)] = shown.left

  def chunks(self, turn: Any) -> Any:
    """Returns the lanes of `best` in which the chunks of a held block lie."""
    return pl.ds(pl.multiple_of(self.kept + turn * LANES, LANES), LANES)


def nothing(rows: int) -> Shown:
  """Returns what is shown of chunks without members."""
  empty = jnp.full((rows, LANES), -jnp.inf)
  return Shown(empty, jnp.zeros(empty.shape, jnp.int32), empty)


def with_next(shown: Shown, new: Any, step: int) -> Shown:
  """Returns what is shown when each chunk gets a newer member."""
  return Shown(
    jnp.maximum(new, shown.best),
    # Not above: of equals the newer comes first.
    jnp.where(new >= shown.best, step, shown.step),
    jnp.maximum(shown.left, jnp.minimum(new, shown.best)),
  )


def choose(k: int, first: Any, scored: Any, held: Held) -> None:
  """Brings the list at the head of `held.best` up to date, in order.

  Args:
    k: behaviors to keep.
    first: visit of the first of the blocks that are held.
    scored: how many are held.
    held: their chunks.
  """
  listed = held.list_best, held.list_order
  for ref, empty in zip(listed, (-jnp.inf, 0.0), strict=True):
    ref[...] = jnp.full(ref.shape, empty)

  def take(n: Any, last: Any) -> Any:
    drawn = _draw(held, last)
    here = lane(listed[0].shape) == n
    for ref, new in zip(listed, drawn, strict=True):
      ref[...] = jnp.where(here, new, ref[...])
    return drawn[1]

  nowhere = jnp.zeros((held.best.shape[0], 1))
  last = jax.lax.fori_loop(0, k, take, nowhere)
  held.best[:, : held.kept] = jnp.full(listed[0].shape, -jnp.inf)

  def next_of(last: Any) -> tuple[Any, Any]:
    """Returns an entry more of each row, and whether any belongs there."""
    drawn = _draw(held, last)
    worst = [ref[:, k - 1 : k] for ref in listed]
    return drawn, _any(_is_before(drawn, worst) & (drawn[0] > -jnp.inf))

  def insert(state: Any) -> Any:
    drawn, _ = state
    lists = _inserted([ref[...] for ref in listed], drawn)
    for ref, new in zip(listed, lists, strict=True):
      ref[...] = new
    return next_of(drawn[1])

  def drain(last: Any) -> Any:
    state = jax.lax.while_loop(lambda state: state[1], insert, next_of(last))
    return state[0][1]

  def least() -> Any:
    """Returns what scores must reach to belong there, none of them -inf."""
    worst = held.list_best[:, k - 1 : k]
    return jnp.maximum(worst, jnp.finfo(jnp.float32).min)

  def go_deeper(state: Any) -> Any:
    last, _ = state
    _show_next(first, scored, held, least())
    last = drain(last)
    return last, _any(_may_belong(held, least()))

  state = last, _any(_may_belong(held, least()))
  jax.lax.while_loop(lambda state: state[1], go_deeper, state)
  for head, ref in zip((held.best, held.order), listed, strict=True):
    head[:, : held.kept] = ref[...]


def _may_belong(
  held: Held, least: Any, rows: slice = slice(None), turn: Any = None
) -> Any:
  """Returns which chunks left a member that may belong into the list.

  Args:
    held: the chunks; what is shown of them and belongs there was drawn.
    least: [c, 1], the score that a member must reach.
    rows: which rows.
    turn: of which block; None: of all.
  """
  shown = slice(held.kept, None) if turn is None else held.chunks(turn)
  left = slice(None) if turn is None else _lanes(turn)
  # Where a member is shown that was not drawn, it is before all others.
  is_drawn = held.best[rows, shown] == -jnp.inf
  return is_drawn & (held.left[rows, left] >= least[rows])


def _show_next(first: Any, scored: Any, held: Held, least: Any) -> None:
  """Shows the next of chunks where it may belong into the list.

  Args:
    first: visit of the first of the blocks that are held.
    scored: how many are held.
    held: their chunks.
    least: [c, 1], the score that a member must reach.
  """
  _, steps, tile, _ = held.scores.shape
  size = math.gcd(tile, _ROWS)
  groups = [slice(at, at + size) for at in range(0, tile, size)]

  def of_rows(n: Any, rows: slice) -> None:
    """Shows the next of each chunk of some rows."""
    gone = (place(held.order[rows, held.chunks(n)]) >> 7) - (first + n) * steps
    shown = nothing(size)
    for s in range(steps):
      scores = jnp.where(gone == s, -jnp.inf, held.scores[n, s, rows])
      held.scores[n, s, rows] = scores
      shown = with_next(shown, scores, s)
    held.show(rows, n, first + n, shown)

  def of_block(n: Any, _: None) -> None:
    found = [_any(_may_belong(held, least, rows, n)) for rows in groups]
    for rows, is_found in zip(groups, found, strict=True):
      pl.when(is_found)(functools.partial(of_rows, n, rows))

  jax.lax.fori_loop(0, scored, of_block, None)


def _draw(held: Held, last: Any) -> tuple[Any, Any]:
  """Returns the best entry of each row, score and order, [c, 1].

  Args:
    held: the entries.
    last: [c, 1], order of the entry that was drawn before: it is taken away.
  """
  # Taken away on the way to the next: all are read twice, not thrice.
  held.best[...] = jnp.where(held.order[...] == last, -jnp.inf, held.best[...])
  top = jnp.max(held.best[...], axis=1, keepdims=True)
  own = jnp.where(held.best[...] == top, held.order[...], 0.0)
  return top, jnp.max(own, axis=1, keepdims=True)


def _inserted(listed: Any, new: Any) -> tuple[Any, Any]:
  """Returns lists with an entry more in each, what was last left out."""
  moved = [pltpu.roll(x, 1, 1) for x in listed]
  stays = _is_before(listed, new)
  is_next = (lane(stays.shape) == 0) | _is_before(moved, new)
  value, order = (
    jnp.where(stays, old, jnp.where(is_next, entry, before))
    for old, entry, before in zip(listed, new, moved, strict=True)
  )
  return value, order


def _is_before(one: Any, other: Any) -> Any:
  """Returns where entries, scores and order, go before others."""
  return (one[0] > other[0]) | ((one[0] == other[0]) & (one[1] > other[1]))


def _order_of(place: Any) -> Any:
  """Returns float32 that compare as places do: their maxima take less time."""
  return jax.lax.bitcast_convert_type(place + _FIRST, jnp.float32)


def place(order: Any) -> Any:
  """Returns the places of what `_order_of` returns."""
  return jax.lax.bitcast_convert_type(order, jnp.int32) - _FIRST


def lane(shape: tuple[int, ...]) -> Any:
  """Returns the lane of each element."""
  return jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)


def _lanes(turn: Any) -> Any:
  return pl.ds(pl.multiple_of(turn * LANES, LANES), LANES)


def _any(flags: Any) -> Any:
  """Returns whether any is true, a scalar."""
  return jnp.max(jnp.where(flags, 1.0, 0.0)) > 0
