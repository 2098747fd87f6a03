"""Positions counted back from a target: exact nearby, log-spaced beyond."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Int
import numpy as np

from dare_jax import shapes

# Ranges a doubling of the distance, and ranges in all: 200 exact positions
# reach 200 * 2^16 behaviors back.
_PER_DOUBLING = 8
_LOG_RANGES = 128


def num_position_ids(exact: int) -> int:
  """Returns the rows of a time table: target, exact and log-spaced ids."""
  return 1 + exact + _LOG_RANGES


def position_ids(length: int, exact: int) -> np.ndarray:
  """Returns the time id of each distance 0..length, int32 [length + 1].

  Distance 0 is the target itself, 1 the most recent behavior. Distances up to
  `exact` have ids of their own; beyond, id exact + 1 + floor(8 log2(d/exact)),
  so that a history longer than any in training has a defined time term.

  >>> position_ids(6, exact=4)
  array([0, 1, 2, 3, 4, 7, 9], dtype=int32)
  """
  distance = np.arange(length + 1)
  ratio = np.maximum(distance, exact) / max(exact, 1)
  step = np.floor(_PER_DOUBLING * np.log2(ratio)).astype(np.int64)
  far = exact + 1 + np.minimum(step, _LOG_RANGES - 1)
  return np.where(distance <= exact, distance, far).astype(np.int32)


@functools.cache
def _first_of_ranges(exact: int) -> np.ndarray:
  """Returns the least distance of each log-spaced id but the first."""
  step = np.arange(1, _LOG_RANGES)
  around = np.floor(max(exact, 1) * 2.0 ** (step / _PER_DOUBLING))
  near = around[:, None].astype(np.int64) + np.arange(-1, 3)
  ratio = np.maximum(near, exact) / max(exact, 1)
  reached = np.floor(_PER_DOUBLING * np.log2(ratio)) >= step[:, None]
  first = np.take_along_axis(near, reached.argmax(1)[:, None], axis=1)[:, 0]
  return np.maximum(first, exact + 1).astype(np.int32)


def ids_up_to(length: shapes.Size, exact: int) -> Int[Array, ' p']:
  """Returns what `position_ids` does, also where the length is no number.

  Args:
    length: greatest distance: a number, or, in a program that is exported for
      any length, a symbol of `jax.export`.
    exact: distances up to it have ids of their own.
  """
  if shapes.are_known(length):
    return jnp.asarray(position_ids(length, exact))
  distance = jnp.arange(length + 1, dtype=jnp.int32)
  return ids_of_distances(distance, exact)


def ids_of_distances(
  distance: Int[Array, ' n'], exact: int
) -> Int[Array, ' n']:
  """Returns the time ids of distances, as `position_ids`, int32.

  For a number of distances that is not known beforehand.

  >>> ids_of_distances(jnp.arange(7), exact=4).tolist()
  [0, 1, 2, 3, 4, 7, 9]
  """
  first = jnp.asarray(_first_of_ranges(exact))
  far = exact + 1 + jnp.searchsorted(first, distance, side='right')
  return jnp.where(distance <= exact, distance, far).astype(jnp.int32)
