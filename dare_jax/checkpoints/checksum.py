"""A checksum of a whole training state, the same on every mesh.

Orbax does not check values: a flipped bit on the disk would be trained on.
Devices sum up what they hold, which costs one pass over their memory; a
checksum of files would have one process read all of them again.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.parallel import processes

# Elements that a device reads at a time.
_CHUNK = 1 << 20


def of_values(state: Any) -> int:
  """Returns a sum over all elements, 32 bits: the same on every mesh.

  Each element's bits are mixed with its place by steps that can be undone, so
  one changed element always changes the sum; several, but for 1 in 2^32.
  """
  leaves = jax.tree.leaves(state)
  return total(sum(part(*numbered) for numbered in enumerate(leaves)))


def part(number: int, leaf: jax.Array) -> int:
  """Returns what this process's devices add to the sum for a leaf."""
  found = [
    _sum(
      shard.data,
      np.uint32(number * 0x9E3779B9 % 2**32),
      np.array([axis.start or 0 for axis in shard.index], np.uint32),
    )
    for shard in leaf.addressable_shards
    if shard.replica_id == 0
  ]
  return sum(map(int, found))


def total(own: int) -> int:
  """Returns the sum of all processes' parts."""
  return int(processes.gather(np.array([own % 2**32])).sum()) % 2**32


@jax.jit
def _sum(block: jax.Array, seed: jax.Array, corner: jax.Array) -> jax.Array:
  """Returns the sum over a block whose first element lies at `corner`."""
  if not block.size:
    return jnp.zeros((), jnp.uint32)
  if not block.ndim:
    return _sum_whole(block, seed, [])
  rows, width = len(block), max(1, math.prod(block.shape[1:]))
  height = min(rows, max(1, _CHUNK // width))

  def add(number: jax.Array, so_far: jax.Array) -> jax.Array:
    # The last chunk overlaps the one before, whose rows count once.
    start = jnp.minimum(number * height, rows - height)
    chunk = jax.lax.dynamic_slice_in_dim(block, start, height)
    starts = [corner[0] + start.astype(jnp.uint32), *corner[1:]]
    is_new = start + jnp.arange(height) >= number * height
    return so_far + _sum_whole(chunk, seed, starts, is_new)

  zero = jnp.zeros((), jnp.uint32)
  return jax.lax.fori_loop(0, -(-rows // height), add, zero)


def _sum_whole(
  block: jax.Array,
  seed: jax.Array,
  starts: list[jax.Array],
  is_new: jax.Array | None = None,
) -> jax.Array:
  bits = _words(block)
  place = jnp.full(bits.shape, seed)
  for axis in range(bits.ndim):
    index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    # 64 bits are two words: an axis more, which is whole.
    place = _mix(
      place ^ (index + starts[axis] if axis < len(starts) else index)
    )
  mixed = _mix(bits ^ place)
  if is_new is not None:
    mixed *= is_new.reshape(-1, *[1] * (bits.ndim - 1)).astype(jnp.uint32)
  return jnp.sum(mixed, dtype=jnp.uint32)


def _words(leaf: jax.Array) -> jax.Array:
  """Returns the bits of an array as unsigned integers of 32 bits."""
  if leaf.dtype.itemsize == 8:
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
  kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, kind).astype(jnp.uint32)


def _mix(bits: jax.Array) -> jax.Array:
  """A permutation of 32 bits in which each depends on all."""
  for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
    bits = (bits ^ bits >> shift) * jnp.uint32(factor)
  return bits ^ bits >> 16
