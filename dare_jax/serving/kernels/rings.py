"""Rings gone through in blocks, from the oldest behavior to the newest.

Where the oldest is within a block, that block is met twice, each time for its
part. A place is the number of a behavior in that order: visit * block + where
it is in the block.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Int


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
