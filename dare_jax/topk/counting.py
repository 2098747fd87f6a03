"""The k best of many rows at once, by counting: the CPU's way.

`jax.lax.top_k` takes one row after another on one core there. A count of what
reaches a bound is a sum of comparisons, which XLA's CPU backend takes 16 at a
time and on all cores: some five counts find a bound that k behaviors of every
row reach, or a few more. Those are found from bits, and put in order by
counting who beats whom.

In a long row the k best lie in the k groups of neighbours with the best maxima:
each of those has a member that beats all members of other groups. So one pass
finds maxima, and only the members of k groups are counted.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt

from dare_jax.topk import ordering
from dare_jax.topk import rows as rows_lib
from dare_jax.topk import turns

# All pairs of those kept are compared: beyond it, too many.
_MOST_KEPT = 63
# So many more than k may be found before they are ranked.
_MORE = 12
# Of a search for a bound: few are needed, unless scores are of all sizes.
_STEPS_BY_SCORE = 8
# Below so many scores there is nothing to gain, and more to compile.
_FEW = 1 << 16
# Scores that are counted together, so that caches hold them.
_TURN = 1 << 20
# Longer rows are counted by groups of neighbours.
WHOLE = 1024
GROUP = rows_lib.GROUP
# A word, one for each lane of a row, has a bit for each run of the lanes.
_BITS = 32
_LONGEST = 512 * _BITS * GROUP
_barrier = jax.lax.optimization_barrier


def suits(rows: int, length: int, k: int) -> bool:
  """Returns whether, on a CPU, k of each row are chosen by counting."""
  return rows * length >= _FEW and k <= _MOST_KEPT and length <= _LONGEST


@functools.partial(jax.jit, static_argnames='k')
def best_k(
  rows: rows_lib.Rows, k: int
) -> tuple[Int[Array, 'r k'], Float[Array, 'r k']]:
  """Returns what `selection.best_k` does, of rows that it `suits`.

  Args:
    rows: the scores of all behaviors, one row for each target.
    k: how many to keep, at most the length of a row.

  Returns:
    Indices int32 and scores float32, best first, of b c rows.
  """
  n = rows.length
  if n > WHOLE:
    return _of_groups(rows, k)
  rows = rows.one_by_one()
  users = len(rows.content)
  size = -(-users // -(-rows.count * n // _TURN))

  def some(take: Any) -> Any:
    own = rows.of_users(take)
    found, order = _best(own.orders(), None, own.newest_of_rows(), n, k)
    lines = lambda x: x.reshape(-1, rows.count // users, k)
    return lines(found), lines(ordering.score_of(order))

  found = turns.of_users(some, users, size)
  return jax.tree.map(lambda x: x.reshape(-1, k), found)


@functools.partial(jax.jit, static_argnames='k')
def are_kept(
  order: Int[Array, 'r n'], newest: Int[Array, 'r 1'], k: int
) -> Bool[Array, 'r n']:
  """Returns which behaviors of each row are its k best.

  A bound that just k reach takes more counts than one that a few more reach,
  but nobody has to be found from bits and ranked.

  Args:
    order: of the behaviors of rings of n, at most `WHOLE`.
    newest: slot of the most recent behavior of each ring.
    k: how many to keep, at most n.
  """
  n = order.shape[-1]
  order = _barrier(order)
  runs = _runs(order, ordering.LOWEST)
  least, reached = _bound(runs, k, k)

  def newest_of_equals() -> Bool[Array, 'r n']:
    age = rows_lib.age(jnp.arange(n, dtype=jnp.int32)[None], newest, n)
    limit = _limit(runs, _runs(age, n), least, k, n)
    return (order > least) | ((order == least) & (age < limit))

  return jax.lax.cond(
    jnp.all(reached == k), lambda: order >= least, newest_of_equals
  )


def _of_groups(rows: rows_lib.Rows, k: int) -> Any:
  """As `best_k`, of long rows."""
  newest = rows.newest_of_rows()
  group = _best_groups(rows.maxima(), newest // GROUP, k)
  flat = lambda x: x.reshape(len(x), -1)
  index = flat(rows_lib.indices(group))
  n = -(-rows.length // GROUP) * GROUP
  index, order = _best(flat(rows.members(group)), index, newest, n, k)
  return index, ordering.score_of(order)


def _best_groups(
  maxima: Int[Array, 'r n'], split: Int[Array, 'r 1'], k: int
) -> Int[Array, 'r m']:
  """Returns the groups in which the k best of each row lie.

  Groups of equal maxima differ in age as their members do, all but the group
  of the most recent behavior, `split`, where the ring begins and ends: it is
  always returned, the last. Many groups are themselves chosen from by groups.
  """
  count = maxima.shape[-1]
  group = None
  is_split = jnp.arange(count, dtype=jnp.int32)[None] == split
  maxima = jnp.where(is_split, ordering.LOWEST, maxima)
  if count > WHOLE:
    # Where something is filled up the maxima are slower.
    fill = -count % GROUP
    edge = [(0, 0), (0, fill)]
    maxima = jnp.pad(maxima, edge, constant_values=ordering.LOWEST)
    maxima = _barrier(maxima.reshape(len(maxima), -1, GROUP))
    count += fill
    some = _best_groups(jnp.max(maxima, axis=-1), split // GROUP, k)
    group = rows_lib.indices(some).reshape(len(some), -1)
    maxima = jnp.take_along_axis(maxima, some[..., None], 1, mode='clip')
    maxima = maxima.reshape(group.shape)
  found, _ = _best(maxima, group, split, count, k)
  return jnp.concatenate([found, split], axis=-1)


def _best(
  order: Int[Array, 'r i'],
  index: Int[Array, 'r i'] | None,
  newest: Int[Array, 'r 1'],
  n: int,
  k: int,
) -> tuple[Int[Array, 'r k'], Int[Array, 'r k']]:
  """Returns the indices and orders of the k best of each row, best first.

  A bound that a few more than k reach is found in a third of the counts that
  the k-th best itself takes. Those few are ranked in pairs.

  Args:
    order: int32 [r, i], the orders of the behaviors, or groups, at `index` in
      rings of n.
    index: int [r, i], distinct in a row; None: all of the ring.
    newest: int [r, 1], slot of the most recent behavior of each ring.
    n: length of the rings.
    k: how many to keep.
  """
  order = _barrier(order)
  most = min(k + _MORE, order.shape[-1])
  runs = _runs(order, ordering.LOWEST)
  least, reached = _bound(runs, k, most)
  is_few = (reached >= k) & (reached <= most)

  def all_that_reach() -> UInt[Array, 'r w']:
    return _words([o >= least for o in runs])

  def newest_of_equals() -> UInt[Array, 'r w']:
    """Where more than `most` reach the bound, it is the k-th best."""
    all_of_them = jnp.arange(order.shape[-1], dtype=jnp.int32)[None]
    age = rows_lib.age(all_of_them if index is None else index, newest, n)
    ages = _runs(age, n)
    limit = jnp.where(is_few, n, _limit(runs, ages, least, k, n))
    return _words(
      [
        (o > least) | ((o == least) & (a < limit))
        for o, a in zip(runs, ages, strict=True)
      ]
    )

  words = jax.lax.cond(jnp.all(is_few), all_that_reach, newest_of_equals)
  place = _set_bits(words, most)
  is_there = jnp.arange(most)[None] < jnp.where(is_few, reached, k)
  found = jnp.where(is_there, _take(order, place), ordering.LOWEST)
  own = place if index is None else _take(index, place)
  return ranked(own, found, rows_lib.age(own, newest, n), k)


def _limit(
  runs: list[Int[Array, 'r w']],
  ages: list[Int[Array, '#r w']],
  least: Int[Array, 'r 1'],
  k: int,
  n: int,
) -> Int[Array, 'r 1']:
  """Returns the age below which equals of the k-th best are kept.

  Args:
    runs: orders.
    ages: of the same behaviors.
    least: the order of the k-th best.
    k: how many to keep.
    n: length of the rings; ages are below.
  """
  pairs = list(zip(runs, ages, strict=True))
  missing = k - _total([o > least for o in runs])

  def halve(carry: tuple[Any, Any]) -> tuple[Any, Any]:
    step, limit = carry
    more = limit + step
    those = _total([(o == least) & (a < more) for o, a in pairs])
    return step // 2, jnp.where(those <= missing, more, limit)

  first = jnp.int32(1 << n.bit_length())
  _, limit = jax.lax.while_loop(
    lambda carry: carry[0] > 0, halve, (first, jnp.zeros_like(least))
  )
  return limit


def _bound(
  runs: list[Int[Array, 'r w']], k: int, most: int
) -> tuple[Int[Array, 'r 1'], Int[Array, 'r 1']]:
  """Returns a bound that k to `most` of a row reach, and how many do.

  Where there is none, because of equals, it is the k-th best itself.
  """
  # So many lanes have maxima that reach the least of these.
  parts = -(-k // runs[0].shape[1])
  maxima = [functools.reduce(jnp.maximum, runs[i::parts]) for i in range(parts)]
  low = jnp.min(functools.reduce(jnp.minimum, maxima), -1, keepdims=True)
  high = jnp.max(functools.reduce(jnp.maximum, maxima), -1, keepdims=True) + 1

  def is_wide(low: Any, high: Any, reached: Any) -> Any:
    return ((reached < k) | (reached > most)) & (low + 1 < high)

  def narrow(carry: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Returns the search for a bound after one more step."""
    step, low, high, reached = carry
    bound = _between(step, low, high)
    those = _total([o >= bound for o in runs])
    wide = is_wide(low, high, reached)
    enough = wide & (those >= k)
    return (
      step + 1,
      jnp.where(enough, bound, low),
      jnp.where(wide & (those < k), bound, high),
      jnp.where(enough, those, reached),
    )

  _, low, _, reached = jax.lax.while_loop(
    lambda carry: jnp.any(is_wide(*carry[1:])),
    narrow,
    (0, low, high, jnp.zeros_like(low)),
  )
  return low, reached


def _between(
  step: Any, low: Int[Array, 'r 1'], high: Int[Array, 'r 1']
) -> Int[Array, 'r 1']:
  """Returns an order above `low` and below `high`, or `low`.

  First the order of the mean score: between a small score and its negative lie
  half of all orders. Then the mean order, which takes 32 steps at the most.
  """
  mean = (low >> 1) + (high >> 1) + (low & high & 1)  # Their sum may not fit.
  score = 0.5 * ordering.score_of(low) + 0.5 * ordering.score_of(high)
  order = ordering.order_of(score)
  is_inside = (step < _STEPS_BY_SCORE) & (order > low) & (order < high)
  return jnp.where(is_inside, order, mean)


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
  return jnp.sum(each, axis=-1, keepdims=True, dtype=jnp.int32)


def _words(runs: list[Bool[Array, 'r w']]) -> UInt[Array, 'r w']:
  """Returns one word for each lane, with a bit for each run."""
  bits = [run.astype(jnp.uint32) << i for i, run in enumerate(runs)]
  return _barrier(functools.reduce(jnp.bitwise_or, bits))


def _set_bits(words: UInt[Array, 'r w'], k: int) -> Int[Array, 'r k']:
  """Returns the places, in the row, of its k set bits."""
  lanes = words.shape[-1]
  count = jax.lax.population_count(words).astype(jnp.int32)
  until = jnp.cumsum(count, axis=-1, dtype=jnp.int32)[:, None, :]
  rank = jnp.arange(k, dtype=jnp.int32)[None]
  is_before = until <= rank[..., None]
  lane = jnp.sum(is_before, axis=-1, dtype=jnp.int32)
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


def ranked(
  index: Int[Array, 'r i'],
  order: Int[Array, 'r i'],
  age: Int[Array, 'r i'],
  k: int,
) -> tuple[Int[Array, 'r k'], Int[Array, 'r k']]:
  """Returns the k best, best first, by counting who beats whom."""
  order, age, index = _barrier((order, age, index))
  found = range(order.shape[-1])
  column = lambda x, i: x[:, i : i + 1]
  rank = jnp.zeros_like(index)
  for i in found:
    other = column(order, i)
    beats = (other > order) | ((other == order) & (column(age, i) < age))
    rank += beats.astype(jnp.int32)
  rank = _barrier(rank)
  place = jnp.arange(k, dtype=jnp.int32)[None]
  sorted_index = jnp.zeros((len(index), k), jnp.int32)
  sorted_order = jnp.zeros_like(sorted_index)
  for i in found:
    here = column(rank, i) == place
    sorted_index = jnp.where(here, column(index, i), sorted_index)
    sorted_order = jnp.where(here, column(order, i), sorted_order)
  return sorted_index, sorted_order


def _take(x: Any, index: Int[Array, 'r i']) -> Any:
  """Returns x[row, index]."""
  return jnp.take_along_axis(x, index, axis=-1, mode='clip')
