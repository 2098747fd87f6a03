"""A checksum of a whole training state, the same on every mesh.

Orbax does not check values: a flipped bit on the disk would be trained on.
Devices sum up what they hold, which costs one pass over their memory; a
checksum of files would have one process read all of them again. What is small
is summed on the host: a device needs a program for each shape.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.parallel import processes

# Elements that a device reads at a time.
_CHUNK = 1 << 20
# Elements of a block up to which the host sums it.
_FEW = 1 << 16


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
    (_sum_on_host if shard.data.size <= _FEW else _sum)(
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


def _sum_on_host(block: jax.Array, seed: np.uint32, corner: np.ndarray) -> int:
  """Returns what `_sum` does; nothing is compiled."""
  with np.errstate(over='ignore'):  # Also of scalars, which would warn.
    return int(_sum_whole(_words(np.asarray(block)), seed, list(corner)))


@jax.jit
def _sum(block: jax.Array, seed: jax.Array, corner: jax.Array) -> jax.Array:
  """Returns the sum over a block whose first element lies at `corner`."""
  if not block.size:
    return jnp.zeros((), jnp.uint32)
  if not block.ndim:
    return _sum_whole(_words(block), seed, [])
  rows, width = len(block), max(1, math.prod(block.shape[1:]))
  height = min(rows, max(1, _CHUNK // width))

  def add(number: jax.Array, so_far: jax.Array) -> jax.Array:
    # The last chunk overlaps the one before, whose rows count once.
    start = jnp.minimum(number * height, rows - height)
    chunk = jax.lax.dynamic_slice_in_dim(block, start, height)
    starts = [corner[0] + start.astype(jnp.uint32), *corner[1:]]
    is_new = start + jnp.arange(height) >= number * height
    return so_far + _sum_whole(_words(chunk), seed, starts, is_new)

  zero = jnp.zeros((), jnp.uint32)
  return jax.lax.fori_loop(0, -(-rows // height), add, zero)


def _sum_whole(
  bits: Any, seed: Any, starts: Sequence[Any], is_new: Any = None
) -> Any:
  """Returns the sum over words, of JAX or of NumPy, that begin at `starts`."""
  xp = np if isinstance(bits, np.ndarray) else jnp
  place = seed
  for axis, size in enumerate(bits.shape):
    along = [size if other == axis else 1 for other in range(bits.ndim)]
    index = xp.arange(size, dtype=np.uint32).reshape(along)
    # 64 bits are two words: an axis more, which is whole.
    place = _mix(
      place ^ (index + starts[axis] if axis < len(starts) else index)
    )
  mixed = _mix(bits ^ place)
  if is_new is not None:
    mixed *= is_new.reshape(-1, *[1] * (bits.ndim - 1)).astype(jnp.uint32)
  return mixed.sum(dtype=np.uint32)


def _words(leaf: Any) -> Any:
  """Returns the bits of an array as unsigned integers of 32 bits."""
  size = leaf.dtype.itemsize
  kind = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32}[size]
  if not isinstance(leaf, np.ndarray):
    return jax.lax.bitcast_convert_type(leaf, kind).astype(np.uint32)
  if size == 8:
    leaf = leaf[..., None]
  return np.asarray(leaf, order='C').view(kind).astype(np.uint32)


def _mix(bits: Any) -> Any:
  """A permutation of 32 bits in which each depends on all."""
  for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
    bits = (bits ^ bits >> shift) * np.uint32(factor)
  return bits ^ bits >> 16
