"""Positions counted back from a target: exact nearby, log-spaced beyond."""

from __future__ import annotations

import numpy as np

# Buckets a doubling of the distance, and buckets in all: 200 exact positions
# reach 200 * 2^16 behaviors back.
_PER_DOUBLING = 8
_LOG_BUCKETS = 128


def num_position_ids(exact: int) -> int:
  """Returns the rows of a time table: target, exact and log-spaced ids."""
  return 1 + exact + _LOG_BUCKETS


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
  bucket = np.floor(_PER_DOUBLING * np.log2(ratio)).astype(np.int64)
  far = exact + 1 + np.minimum(bucket, _LOG_BUCKETS - 1)
  return np.where(distance <= exact, distance, far).astype(np.int32)
