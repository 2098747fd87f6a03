"""The k best of many rows at once, by counting: the CPU's way.

`jax.lax.top_k` takes one row after another on one core there. A count of what
reaches a bound is a sum of comparisons, which XLA's CPU backend takes 16 at a
time and on all cores: some 20 counts, each halving an interval, find the k-th
best of every row. What reaches it is found from bits, and put in order by
counting who beats whom.

In a long row the k best lie in the k groups of neighbours with the best maxima:
each of those has a member that beats all members of other groups. So one pass
finds maxima, and only the members of k groups are counted.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt

from dare_jax.search import ordering

# All pairs of those kept are compared: beyond it, too many.
_MOST_KEPT = 63
# Below so many scores there is nothing to gain, and more to compile.
_FEW = 1 << 16
# Scores that are counted together, so that caches hold them.
_TURN = 1 << 20
# Longer rows are counted by groups of neighbours.
_WHOLE = 1024
# Neighbours whose maximum is taken: the width at which XLA's CPU backend takes
# maxima 16 at a time.
GROUP = 16
# A word, one for each lane of a row, has a bit for each run of the lanes.
_BITS = 32
_LONGEST = 512 * _BITS * GROUP
_barrier = jax.lax.optimization_barrier


def suits(rows: int, length: int, k: int) -> bool:
  """Returns whether to choose k of each row so, on a CPU."""
  return rows * length >= _FEW and k <= _MOST_KEPT and length <= _LONGEST


@functools.partial(jax.jit, static_argnames='k')
def best_k(
  scores: Float[Array, 'r n'],
  visible: Bool[Array, 'r n'],
  newest: Int[Array, 'r 1'],
  k: int,
) -> tuple[Int[Array, 'r k'], Float[Array, 'r k']]:
  """Returns what `selection.best_k` does, of rows that it `suits`.

  Args:
    scores: of all behaviors.
    visible: False is never kept.
    newest: the most recent behavior; others follow backwards, around the ring.
    k: to keep, at most n.

  Returns:
    Indices int32 and scores float32, best first.
  """
  rows, n = scores.shape
  if n > _WHOLE:
    return _of_groups(scores, visible, newest, k)
  turns = -(-rows * n // _TURN)
  size = -(-rows // turns)
  if size == rows:
    return _of_rows(scores, visible, newest, k)

  def turn(i: Any, found: Any) -> Any:
    # The last turn does some rows again.
    first = jnp.minimum(i * size, rows - size)
    part = lambda x: jax.lax.dynamic_slice_in_dim(x, first, size)
    new = _of_rows(part(scores), part(visible), part(newest), k)
    put = lambda old, x: jax.lax.dynamic_update_slice(old, x, (first, 0))
    return jax.tree.map(put, found, new)

  found = (jnp.zeros((rows, k), jnp.int32), jnp.zeros((rows, k)))
  return jax.lax.fori_loop(0, -(-rows // size), turn, found)


def _of_rows(scores: Any, visible: Any, newest: Any, k: int) -> Any:
  """As `best_k`, of short rows."""
  n = scores.shape[-1]
  index = jnp.arange(n, dtype=jnp.int32)[None]
  order = _order(scores, visible, index, n)
  return _counted(order, index, newest, n, k)


def _of_groups(scores: Any, visible: Any, newest: Any, k: int) -> Any:
  """As `best_k`, of long rows.

  Groups of equal maxima differ in age as their members do, all but the group
  of the most recent behavior, where the ring begins and ends: its members are
  always counted.
  """
  scores, visible = _in_groups(scores), _in_groups(visible)
  count = scores.shape[1]
  n = count * GROUP
  group = jnp.arange(count, dtype=jnp.int32)[None]
  order = _order(scores, visible, _members(group), n)
  split = newest // GROUP
  maxima = jnp.max(order, axis=-1)
  maxima = jnp.where(group == split, ordering.LOWEST, maxima)
  group, _ = _kept(maxima, lambda: _age(group, split, count), count, k)
  group = jnp.concatenate([group, split], axis=-1)
  take = lambda x: jnp.take_along_axis(x, group[..., None], 1, mode='clip')
  index = _members(group)
  order = _order(take(scores), take(visible), index, n)
  flat = lambda x: x.reshape(len(x), -1)
  return _counted(flat(order), flat(index), newest, n, k)


def _in_groups(x: Any) -> Any:
  """Returns rows as groups of neighbours, the last filled up."""
  fill = -x.shape[-1] % GROUP
  x = jnp.pad(x, [(0, 0), (0, fill)]) if fill else x
  return x.reshape(len(x), -1, GROUP)


def _members(group: Int[Array, 'r i']) -> Int[Array, 'r i w']:
  """Returns the indices of the members of groups."""
  member = jnp.arange(GROUP, dtype=jnp.int32)[None, None]
  return group[..., None] * GROUP + member


def _order(
  scores: Float[Array, 'r ...'],
  visible: Bool[Array, 'r ...'],
  index: Int[Array, '#r ...'],
  n: int,
) -> Int[Array, 'r ...']:
  """Returns the orders of behaviors of rows of n.

  Those that are not visible come last, and differ, and widely: telling equals
  apart, or neighbours, takes time.
  """
  apart = (ordering.NOTHING - ordering.LOWEST - 1) // n
  unseen = ordering.NOTHING - 1 - index * apart
  return jnp.where(visible, ordering.order_of(scores), unseen)


def _age(
  index: Int[Array, '#r i'], newest: Int[Array, 'r 1'], n: int
) -> Int[Array, 'r i']:
  """Returns how far back behaviors lie in a ring of n."""
  return newest - index + jnp.where(index > newest, n, 0)


def _counted(
  order: Int[Array, 'r i'],
  index: Int[Array, '#r i'],
  newest: Int[Array, 'r 1'],
  n: int,
  k: int,
) -> tuple[Int[Array, 'r k'], Float[Array, 'r k']]:
  """As `best_k`, of the behaviors at some indices of rows of n."""
  place, order = _kept(order, lambda: _age(index, newest, n), n, k)
  index = _take(jnp.broadcast_to(index, (len(order), index.shape[1])), place)
  index, order = _sorted(order, _age(index, newest, n), index)
  return index, ordering.score_of(order)


def _kept(
  order: Int[Array, 'r n'],
  age: Callable[[], Int[Array, 'r n']],
  oldest: int,
  k: int,
) -> tuple[Int[Array, 'r k'], Int[Array, 'r k']]:
  """Returns places and orders of the k best of each row, as they lie.

  Args:
    order: of the row.
    age: gives ages, distinct in a row: asked for where orders are equal.
    oldest: above all ages.
    k: to keep.
  """
  order = _barrier(order)
  runs = _runs(order, ordering.LOWEST)
  least, reached = _kth(runs, k)

  def all_that_reach() -> UInt[Array, 'r w']:
    return _words([o >= least for o in runs])

  def newest_of_equals() -> UInt[Array, 'r w']:
    pairs = list(zip(runs, _runs(age(), oldest), strict=True))
    missing = k - _total([o > least for o in runs])

    def halve(carry: tuple[Any, Any]) -> tuple[Any, Any]:
      step, limit = carry
      more = limit + step
      those = _total([(o == least) & (a < more) for o, a in pairs])
      return step // 2, jnp.where(those <= missing, more, limit)

    first = jnp.int32(1 << oldest.bit_length())
    _, limit = jax.lax.while_loop(
      lambda carry: carry[0] > 0, halve, (first, jnp.zeros_like(least))
    )
    return _words(
      [(o > least) | ((o == least) & (a < limit)) for o, a in pairs]
    )

  unique = jnp.all(reached == k)
  words = jax.lax.cond(unique, all_that_reach, newest_of_equals)
  place = _set_bits(words, k)
  return place, _take(order, place)


def _kth(
  runs: list[Int[Array, 'r w']], k: int
) -> tuple[Int[Array, 'r 1'], Int[Array, 'r 1']]:
  """Returns a bound that k or more of a row reach, and how many do.

  Where more than k do, the bound is the k-th best itself.
  """
  # So many lanes have maxima that reach the least of these.
  parts = -(-k // runs[0].shape[1])
  maxima = [functools.reduce(jnp.maximum, runs[i::parts]) for i in range(parts)]
  low = jnp.min(functools.reduce(jnp.minimum, maxima), -1, keepdims=True)
  high = jnp.max(functools.reduce(jnp.maximum, maxima), -1, keepdims=True) + 1

  def undecided(carry: tuple[Any, Any, Any]) -> Any:
    low, high, reached = carry
    return jnp.any((reached != k) & (low + 1 < high))

  def halve(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    low, high, reached = carry
    # Their mean; the sum may be too large.
    bound = (low >> 1) + (high >> 1) + (low & high & 1)
    those = _total([o >= bound for o in runs])
    enough = those >= k
    return (
      jnp.where(enough, bound, low),
      jnp.where(enough, high, bound),
      jnp.where(enough, those, reached),
    )

  start = (low, high, jnp.zeros_like(low))
  low, _, reached = jax.lax.while_loop(undecided, halve, start)
  return low, reached


def _runs(x: Int[Array, 'r n'], fill: int) -> list[Any]:
  """Returns a row's runs of lanes, the last filled up."""
  n = x.shape[-1]
  lanes = 32 if n <= 32 * _BITS else GROUP * -(-n // (_BITS * GROUP))
  parts = [x[:, i : i + lanes] for i in range(0, n, lanes)]
  missing = lanes - parts[-1].shape[-1]
  if missing:
    parts[-1] = jnp.pad(parts[-1], [(0, 0), (0, missing)], constant_values=fill)
  return parts


def _total(runs: list[Bool[Array, 'r w']]) -> Int[Array, 'r 1']:
  """Returns how many are True in each row."""
  each = sum(run.astype(jnp.int32) for run in runs)
  return jnp.sum(each, axis=-1, keepdims=True)


def _words(runs: list[Bool[Array, 'r w']]) -> UInt[Array, 'r w']:
  """Returns one word for each lane, with a bit for each run."""
  bits = [run.astype(jnp.uint32) << i for i, run in enumerate(runs)]
  return _barrier(functools.reduce(jnp.bitwise_or, bits))


def _set_bits(words: UInt[Array, 'r w'], k: int) -> Int[Array, 'r k']:
  """Returns the places, in the row, of its k set bits."""
  lanes = words.shape[-1]
  count = jax.lax.population_count(words).astype(jnp.int32)
  until = jnp.cumsum(count, axis=-1)[:, None, :]
  rank = jnp.arange(k, dtype=jnp.int32)[None]
  is_before = until <= rank[..., None]
  lane = jnp.sum(is_before.astype(jnp.int32), axis=-1)
  before = jnp.max(jnp.where(is_before, until, 0), axis=-1)
  lane, rank = _barrier((lane, rank - before))
  word = _take(words, lane)
  bit = jnp.zeros_like(lane)
  for half in (16, 8, 4, 2, 1):
    low = word & jnp.uint32((1 << half) - 1)
    below = jax.lax.population_count(low).astype(jnp.int32)
    up = rank >= below
    rank = jnp.where(up, rank - below, rank)
    word = jnp.where(up, word >> half, word)
    bit += jnp.where(up, half, 0)
  return _barrier(bit * lanes + lane)


def _sorted(
  order: Int[Array, 'r k'], age: Int[Array, 'r k'], index: Int[Array, 'r k']
) -> tuple[Int[Array, 'r k'], Int[Array, 'r k']]:
  """Returns indices and orders, best first, by counting who beats whom."""
  order, age, index = _barrier((order, age, index))
  kept = range(order.shape[-1])
  column = lambda x, i: x[:, i : i + 1]
  rank = jnp.zeros_like(index)
  for i in kept:
    other = column(order, i)
    beats = (other > order) | ((other == order) & (column(age, i) < age))
    rank += beats.astype(jnp.int32)
  rank = _barrier(rank)
  place = jnp.arange(order.shape[-1], dtype=jnp.int32)[None]
  sorted_index, sorted_order = jnp.zeros_like(index), jnp.zeros_like(order)
  for i in kept:
    here = column(rank, i) == place
    sorted_index = jnp.where(here, column(index, i), sorted_index)
    sorted_order = jnp.where(here, column(order, i), sorted_order)
  return sorted_index, sorted_order


def _take(x: Any, index: Int[Array, 'r i']) -> Any:
  """Returns x[row, index]."""
  return jnp.take_along_axis(x, index, axis=-1, mode='clip')
