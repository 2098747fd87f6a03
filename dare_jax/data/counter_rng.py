"""Random numbers as pure functions of counters: no state to save or share.

A draw is a hash of the integers that name it (seed, epoch, example, slot), so
shuffling, sharding and resuming are arithmetic. The mixer is the finaliser of
SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
2014), applied once for each integer.
"""

from __future__ import annotations

import numpy as np

# Names of independent streams of draws, beside a seed.
NEGATIVES, ORDER, UNKNOWN, BATCHES, IN_BATCH = 1, 2, 3, 4, 5
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def bits(*counters: int | np.ndarray) -> np.ndarray:
  """Returns uint64 hashes of broadcast integer counters.

  >>> int(bits(1, 2)) == int(bits(1, 2)), int(bits(1, 2)) == int(bits(2, 1))
  (True, False)
  """
  state = np.zeros((), np.uint64)
  with np.errstate(over='ignore'):
    for counter in counters:
      word = np.asarray(counter, np.int64).view(np.uint64)
      state = (state ^ word) + _GOLDEN
      state = (state ^ (state >> np.uint64(30))) * _MIX_1
      state = (state ^ (state >> np.uint64(27))) * _MIX_2
      state = state ^ (state >> np.uint64(31))
  return state


def uniform(*counters: int | np.ndarray) -> np.ndarray:
  """Returns float64 in [0, 1)."""
  return (bits(*counters) >> np.uint64(11)) * 2.0**-53


def below(limit: int | np.ndarray, *counters: int | np.ndarray) -> np.ndarray:
  """Returns int64 in [0, limit); limit up to 2^40, bias below 2^-13."""
  return np.floor(uniform(*counters) * limit).astype(np.int64)


def permute(index: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
  """Returns the images of `index` under a random permutation of range(size).

  A four-round Feistel network over the next power of four, walked until it
  falls inside the range: any position of any epoch in O(1) time and memory.

  >>> sorted(permute(np.arange(10), 10, seed=3, epoch=0).tolist())
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  """
  index = np.asarray(index, np.int64)
  half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
  mask = (1 << half) - 1
  out = _feistel(index, half, mask, seed, epoch)
  while (outside := out >= size).any():
    out[outside] = _feistel(out[outside], half, mask, seed, epoch)
  return out


def _feistel(
  values: np.ndarray, half: int, mask: int, seed: int, epoch: int
) -> np.ndarray:
  left, right = values >> half, values & mask
  for level in range(4):
    mixed = bits(seed, epoch, level, right).view(np.int64) & mask
    left, right = right, left ^ mixed
  return (left << half) | right
