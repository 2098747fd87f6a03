"""What kernels are given, how they score it, and a running top-k by lanes.

A row's scores are dealt out to `lanes` lists, behavior i to list i % lanes.
Each list keeps its best `depth` entries in order while the scores go by, which
is element-wise work and crosses no lane. At the end the best k of all lists
are drawn, one at a time. They are the best k of the row unless some list gave
all of its entries: it may have forgotten one as good. Then the kernel says so
and the caller runs it again at full depth, so that the answer is exact in any
case.

An entry is a value and a step: that of list j at step s is at place
s * lanes + j. Places are in order of age, so that of equal values the newer
goes before the older: a ring is gone through from where its oldest behavior
is. Where that is within a block, the block is met twice, each time for its
part.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

Values = tuple[Float[Array, 'c w'], ...]
Steps = tuple[Int[Array, 'c w'], ...]


class Operands(NamedTuple):
  """What a kernel searches, and for what.

  Attributes:
    queries: [b, c, h] each, the scaled queries of the targets: float32;
      bfloat16 where keys are narrower; two arrays, of the even and the odd
      dimensions, where keys are words.
    keys: the keys of the behaviors: float32 or int8 [b, d, l]; or int32 [b, h,
      l], two bfloat16 in a word, the even dimension in its low half.
    scale: float32 [b, l], what the products with a key are multiplied by; None
      is 1.
    bias: float32 [b, l], added to the scores; -inf is invisible.
    oldest: int32 [b], the slot at which each ring begins.
  """

  queries: Sequence[Any]
  keys: Any
  scale: Any
  bias: Any
  oldest: Any

  @property
  def length(self) -> int:
    """Slots of a row, l."""
    return self.keys.shape[-1]

  @property
  def rows(self) -> int:
    """Targets of all users, b c."""
    return self.queries[0].shape[0] * self.queries[0].shape[1]


# The step of an entry that was never there, and of one drawn already.
EMPTY = 0
DRAWN = -1

# Chance that any list of a call is too short for random scores.
_RISK = 1e-3


@functools.cache
def depth(k: int, length: int, rows: int, lanes: int) -> int:
  """Returns how many entries each list should keep.

  k of `length` scores in random order fill some list of one row to depth t
  with a chance of at most lanes * C(k, t) / lanes^t. The depth is the least
  that keeps this below 0.1 % over all rows, and never more than a list can
  hold or give.

  >>> depth(20, 50_000, rows=1, lanes=512), depth(20, 50_000, 8192, 512)
  (4, 6)
  >>> depth(20, 600, rows=1, lanes=512)
  2
  """
  full = full_depth(k, length, lanes)
  for t in range(1, full):
    if rows * lanes * math.comb(k, t) / lanes**t <= _RISK:
      return t
  return full


def full_depth(k: int, length: int, lanes: int) -> int:
  """Returns the depth at which no list forgets an entry that could be drawn.

  >>> full_depth(20, 50_000, 512), full_depth(20, 600, 512)
  (20, 2)
  """
  return min(k, -(-length // lanes))


def exact(
  run: Callable[[int], Any], k: int, length: int, rows: int, lanes: int
) -> tuple[Any, Any]:
  """Returns indices and scores of `run(depth)`, deep enough in the end.

  Args:
    run: returns, for a depth, indices, scores, and a number above 0 where a
      list ran out.
    k: number of behaviors kept of each row.
    length: number of behaviors of a row.
    rows: number of all rows, from which the depth is chosen.
    lanes: number of lists of a row.
  """
  first, full = depth(k, length, rows, lanes), full_depth(k, length, lanes)
  indices, scores, ran_out = run(first)
  if first == full:
    return indices, scores
  return jax.lax.cond(
    jnp.any(ran_out > 0),
    lambda: run(full)[:2],
    lambda: (indices, scores),
  )


def visits(length: int, block: int) -> int:
  """Returns how many blocks of a ring are gone through, one of them twice."""
  return -(-length // block) + 1


def block_of(visit: Any, oldest: Any, length: int, block: int) -> Any:
  """Returns the block of a ring that is met at some visit.

  The last visit is to the block of the first, or, where the ring begins with a
  block, stays where it is: then it has nothing to do, see `is_met`.
  """
  blocks = -(-length // block)
  # Whole numbers from 0, divided as such: kernels ask no platform for signs.
  within = jax.lax.rem(oldest, jnp.int32(block))
  visit = jnp.where((visit < blocks) | (within > 0), visit, visit - 1)
  number = jax.lax.div(oldest, jnp.int32(block)) + visit
  return jnp.where(number < blocks, number, number - blocks)


def is_met(
  slot: Int[Array, ...], visit: Any, oldest: Any, length: int, block: int
) -> Bool[Array, ...]:
  """Returns which slots of a visit's block are for this visit."""
  blocks = -(-length // block)
  within = jax.lax.rem(oldest, jnp.int32(block))
  return ((visit > 0) | (slot >= oldest)) & (
    (visit < blocks) | ((slot < oldest) & (within > 0))
  )


def slots(
  places: Int[Array, 'b c k'], oldest: Int[Array, ' b'], length: int, block: int
) -> Int[Array, 'b c k']:
  """Returns the slots of places in the order in which blocks are met."""
  first = (oldest // block * block)[:, None, None]
  slot = (first + places) % (-(-length // block) * block)
  return jnp.minimum(slot, length - 1)  # What is not kept may be any.


def products(
  queries: Any, key: Any, precision: Any = jax.lax.Precision.HIGHEST
) -> Float[Array, 'c w']:
  """Returns <q, k> in float32, of bfloat16 queries in one pass.

  Args:
    queries: [c, d], the queries of some targets: float32, or bfloat16 where
      keys are narrower. Two arrays [c, d / 2] where two bfloat16 keys are in a
      word.
    key: [d, w], the keys of some behaviors: float32, int8, or int32 words [d /
      2, w], the even dimensions in their low halves.
    precision: the precision of products of float32 queries, which must not be
      rounded.
  """
  total: Any = sum(
    jax.lax.dot_general(
      query,
      own.astype(query.dtype),
      (((1,), (0,)), ((), ())),
      precision=precision if query.dtype == jnp.float32 else None,
      preferred_element_type=jnp.float32,
    )
    for query, own in zip(queries, widened(key, len(queries)), strict=True)
  )
  return total


def widened(key: Any, parts: int) -> list[Any]:
  """Returns keys as float32, one array for each query.

  Args:
    key: float32 or int8; or int32 words, two bfloat16 in each, those of the
      even dimensions in the low halves.
    parts: how many keys are in one number.
  """
  if parts == 1:
    return [key.astype(jnp.float32)]
  halves = key << 16, key & -(1 << 16)
  return [jax.lax.bitcast_convert_type(half, jnp.float32) for half in halves]


def rank(
  products: Float[Array, '*rows w'], bias: Float[Array, '*broadcast w']
) -> Float[Array, '*rows w']:
  """Returns products plus bias: +inf for NaN, -inf wherever the bias is.

  What the product is does not matter there, be it NaN.
  """
  total = products + bias
  total = jnp.where(total == total, total, jnp.inf)
  return jnp.where(bias > -jnp.inf, total, -jnp.inf)


def insert(
  values: Values,
  steps: Steps,
  new: Float[Array, 'c w'],
  step: Int[Array, ''],
) -> tuple[Values, Steps]:
  """Returns the lists with one more entry in each, and the worst left out.

  Args:
    values: entries of each list by depth, descending, without NaN.
    steps: step at which each of these entries came, all below `step`.
    new: the next value of each list.
    step: int scalar, the step at which the new values come.
  """
  # Not above: of equals the newer comes first.
  above = [new >= value for value in values]
  new_values = [jnp.maximum(values[0], new)]
  new_steps = [jnp.where(above[0], step, steps[0])]
  for t in range(1, len(values)):
    new_values.append(jnp.maximum(values[t], jnp.minimum(values[t - 1], new)))
    new_steps.append(
      jnp.where(above[t - 1], steps[t - 1], jnp.where(above[t], step, steps[t]))
    )
  return tuple(new_values), tuple(new_steps)


def draw(
  values: Values, steps: Steps
) -> tuple[Float[Array, 'c 1'], Int[Array, 'c 1'], Values, Steps]:
  """Returns the best entry of each row, its place, and the lists without.

  A row without any entry above -inf gives -inf and some place, and stays.
  """
  shape = values[0].shape
  lanes = shape[1]
  best = jnp.max(values[0], axis=1, keepdims=True)
  place = steps[0] * lanes + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  is_best = (values[0] == best) & (best > -jnp.inf)
  index = jnp.max(jnp.where(is_best, place, 0), axis=1, keepdims=True)
  hit = is_best & (place == index)
  later_values = (*values[1:], jnp.full(shape, -jnp.inf, values[0].dtype))
  later_steps = (*steps[1:], jnp.full(shape, DRAWN, jnp.int32))
  values = tuple(
    jnp.where(hit, later, value)
    for value, later in zip(values, later_values, strict=True)
  )
  steps = tuple(
    jnp.where(hit, later, step)
    for step, later in zip(steps, later_steps, strict=True)
  )
  return best, index, values, steps


def ran_out(steps: Steps) -> Bool[Array, 'c w']:
  """Returns which lists gave all that they kept."""
  return steps[0] == DRAWN
