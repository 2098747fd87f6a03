"""Where a field of a target equals that of a behavior.

What the unknown id and padding stand for is equal to nothing, not to itself:
targets have `NOTHING` in their place, which no behavior has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt32

from dare_jax import shapes
from dare_jax import types

NOTHING = -1
_BITS, _AT_ONCE = 32, 8


@struct.dataclass
class Matching:
  """What targets match, field by field.

  Fields are untyped: transformations of JAX fill them with other things.

  Attributes:
    ids: field -> int32 [b, m, c], ids of the targets, `NOTHING` where none
      matches.
    bias: field -> what a match adds to a score; no fields: nothing.
  """

  ids: Any
  bias: Any = struct.field(default_factory=dict)


def is_nothing(
  ids: Int[Array, '*shape'], unknown: Any
) -> Bool[Array, '*shape']:
  """Returns where ids are padding, or unknown."""
  return (ids == 0) | (ids == unknown)


def scores(
  matching: Matching, history: Mapping[str, Int[Array, 'b l']]
) -> Float[Array, 'b m c l'] | float:
  """Returns what matches add to the scores of all behaviors."""
  total: Any = 0.0
  for field, bias in matching.bias.items():
    same = history[field][:, None, None] == matching.ids[field][..., None]
    total += jnp.where(same, bias, jnp.zeros_like(bias))
  return total


def count(
  ids: Int[Array, 'b l'],
  targets: Int[Array, 'b m c'],
  start: Int[Array, 'b m'],
  end: Int[Array, 'b m'],
) -> types.Matches:
  """Returns how often, and how far back, targets occur in histories.

  Args:
    ids: ids of the behaviors, oldest first.
    targets: ids, `NOTHING` for none.
    start: index of the first behavior that each moment sees.
    end: index behind the last.
  """
  length = ids.shape[1]
  if shapes.are_known(length):
    number, last = _count_by_words(ids, targets, start, end)
  else:
    index = jnp.arange(length, dtype=jnp.int32)[None, None]
    seen = (index >= start[..., None]) & (index < end[..., None])
    same = (ids[:, None, None] == targets[..., None]) & seen[:, :, None]
    number = jnp.sum(same, axis=-1, dtype=jnp.int32)
    last = jnp.max(jnp.where(same, index[:, :, None], -1), axis=-1)
  distance = jnp.where(number > 0, end[..., None] - last, 0)
  return types.Matches(count=number, distance=distance)


def _count_by_words(
  ids: Int[Array, 'b l'],
  targets: Int[Array, 'b m c'],
  start: Int[Array, 'b m'],
  end: Int[Array, 'b m'],
) -> tuple[Int[Array, 'b m c'], Int[Array, 'b m c']]:
  """Returns how often targets occur, and the index of the last; -1: of none.

  A history is cut into runs of some lanes, and a word for each lane has a bit
  for each run: whether the behavior is the target's. Another word says which
  of them the moment sees. XLA's CPU backend makes 8 words at a time; sums of
  comparisons along rows take 25 times as long.
  """
  length = ids.shape[1]
  lanes = _AT_ONCE * -(-length // (_BITS * _AT_ONCE))
  runs = -(-length // lanes)
  padding = [(0, 0), (0, runs * lanes - length)]
  ids = jnp.pad(ids, padding, constant_values=NOTHING - 1)
  words: Any = jnp.uint32(0)
  for place, run in enumerate(_cut(ids, runs)):
    same = run[:, None, None] == targets[..., None]
    words |= jnp.where(same, jnp.uint32(1 << place), jnp.uint32(0))
  seen = _runs_before(end, lanes) & ~_runs_before(start, lanes)
  words &= seen[:, :, None]
  number: Any = 0
  last: Any = -1
  lane = jnp.arange(lanes, dtype=jnp.int32)
  lane = lane.reshape(-1, 1, 1, 1, _AT_ONCE)
  for some, places in zip(_cut(words, len(lane)), lane, strict=True):
    number += jax.lax.population_count(some).astype(jnp.int32)
    run_of_last = _BITS - 1 - jax.lax.clz(some).astype(jnp.int32)
    index = jnp.where(some > 0, run_of_last * lanes + places, -1)
    last = jnp.maximum(last, index)
  return jnp.sum(number, axis=-1), jnp.max(last, axis=-1)


def _runs_before(
  index: Int[Array, 'b m'], lanes: int
) -> UInt32[Array, 'b m lanes']:
  """Returns words with a bit for each run whose behavior is before an index."""
  lane = jnp.arange(lanes, dtype=jnp.int32)[None, None]
  count = (index[..., None] - lane + lanes - 1) // lanes
  shift = jnp.clip(count, 0, _BITS - 1).astype(jnp.uint32)
  some = (jnp.uint32(1) << shift) - jnp.uint32(1)
  return jnp.where(count < _BITS, some, ~jnp.uint32(0))


def _cut(x: Any, count: int) -> list[Any]:
  """Returns runs of rows, of something that is written out before."""
  return jnp.split(jax.lax.optimization_barrier(x), count, axis=-1)
