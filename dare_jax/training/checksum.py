"""A checksum of a whole training state, the same on every mesh.

Orbax does not check values: a flipped bit on the disk would be trained on.
Devices sum up what they hold, which costs one pass over their memory; a
checksum of files would have one process read all of them again.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dare_jax.training import state as train_state


@jax.jit
def of_values(state: train_state.TrainState) -> jax.Array:
  """Returns a sum over all elements, uint32: the same on every mesh.

  Each element's bits are mixed with its place by steps that can be undone, so
  one changed element always changes the sum; several, but for 1 in 2^32.
  """
  total = jnp.zeros((), jnp.uint32)
  for number, leaf in enumerate(jax.tree.leaves(state)):
    bits = _words(leaf)
    place = jnp.full(bits.shape, number * 0x9E3779B9 % 2**32, jnp.uint32)
    for axis in range(bits.ndim):
      index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
      place = _mix(place ^ index)
    total += jnp.sum(_mix(bits ^ place), dtype=jnp.uint32)
  return total


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
