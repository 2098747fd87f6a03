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

from dare_jax import shapes
from dare_jax import types

NOTHING = -1
# From so many targets of a history on, sorting it takes less time than to
# compare each behavior with each target, on a CPU.
_MANY = 48
_NEVER = -(2**31)


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
  order: Int[Array, '#b l'],
  targets: Int[Array, 'b m c'],
  start: Int[Array, 'b m'],
  end: Int[Array, 'b m'],
) -> types.Matches:
  """Returns how often, and how far back, targets occur in histories.

  Args:
    ids: of the behaviors.
    order: in which they came, distinct in a history.
    targets: ids, `NOTHING` for none.
    start: the least order that each moment sees.
    end: as many behaviors lie `distance` back as `end` exceeds their order; no
      order is larger at a moment.
  """
  _, moments, candidates = targets.shape
  many = shapes.are_known(ids.shape[1], moments, candidates)
  many = many and moments * candidates >= _MANY
  counts = _count_sorted if many else _count_compared
  return counts(ids, order, targets, start, end)


def _count_compared(
  ids: Int[Array, 'b l'],
  order: Int[Array, '#b l'],
  targets: Int[Array, 'b m c'],
  start: Int[Array, 'b m'],
  end: Int[Array, 'b m'],
) -> types.Matches:
  """Returns what `count` does, by comparing all pairs; nothing is written."""
  order = order[:, None]
  seen = (order >= start[..., None]) & (order < end[..., None])
  own = jnp.where(seen, ids[:, None], NOTHING - 1)
  same = own[:, :, None] == targets[..., None]
  number = jnp.sum(same, axis=-1, dtype=jnp.int32)
  last = jnp.max(jnp.where(same, order[:, :, None], _NEVER), axis=-1)
  return _matches(number, last, end)


def _count_sorted(
  ids: Int[Array, 'b l'],
  order: Int[Array, '#b l'],
  targets: Int[Array, 'b m c'],
  start: Int[Array, 'b m'],
  end: Int[Array, 'b m'],
) -> types.Matches:
  """Returns what `count` does: equals of a moment's span lie side by side."""
  shape = targets.shape
  ids, order = jax.lax.sort(
    (ids, jnp.broadcast_to(order, ids.shape)), dimension=1, num_keys=2
  )
  flat = lambda x: x.reshape(shape[0], -1)
  spans = [
    _below(ids, order, flat(targets), flat(jnp.repeat(x, shape[2], axis=1)))
    for x in (start, end)
  ]
  first, stop = spans
  last = jnp.take_along_axis(order, jnp.maximum(stop - 1, 0), axis=1)
  number = (stop - first).reshape(shape)
  return _matches(number, last.reshape(shape), end)


def _below(
  ids: Int[Array, 'b l'],
  order: Int[Array, 'b l'],
  target: Int[Array, 'b n'],
  bound: Int[Array, 'b n'],
) -> Int[Array, 'b n']:
  """Returns how many of sorted pairs come before (target, bound)."""
  length = ids.shape[1]
  take = lambda x, i: jnp.take_along_axis(x, i, axis=1, mode='clip')

  def halve(_: Any, limits: tuple[Any, Any]) -> tuple[Any, Any]:
    low, high = limits
    middle = (low + high) // 2
    own, when = take(ids, middle), take(order, middle)
    is_before = (own < target) | ((own == target) & (when < bound))
    is_before &= low < high
    return (
      jnp.where(is_before, middle + 1, low),
      jnp.where(is_before, high, jnp.minimum(middle, high)),
    )

  limits = jnp.zeros_like(target), jnp.full_like(target, length)
  return jax.lax.fori_loop(0, length.bit_length(), halve, limits)[0]


def _matches(
  number: Int[Array, 'b m c'], last: Int[Array, 'b m c'], end: Int[Array, 'b m']
) -> types.Matches:
  distance = jnp.where(number > 0, end[..., None] - last, 0)
  return types.Matches(count=number, distance=distance)
