"""Batches of histories of about one length, so that little of them is padding.

Most histories are far shorter than the longest. Each batch is made just long
enough for a few lengths, chosen by the data; the order of an epoch stays
arithmetic: shuffled within each length, cut into batches, batches shuffled.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dare_jax.data import counter_rng

# Lengths are multiples of this and have no more than so many leading bits.
_UNIT, _BITS = 8, 5


@dataclasses.dataclass(frozen=True)
class LengthGroups:
  """Examples in groups of about one length, the shortest first.

  Attributes:
    lengths: int64 [groups], ascending: slots for a history of each group.
    order: int64 [examples], numbers of the examples, group by group.
    first: int64 [groups + 1], the place in `order` at which each group begins;
      the last element is len(order).
  """

  lengths: np.ndarray
  order: np.ndarray
  first: np.ndarray

  def length_of(self, place: int) -> int:
    """Returns the slots that all examples up to a place in `order` fit in."""
    group = np.searchsorted(self.first, place, side='right') - 1
    return int(self.lengths[group])

  def places(self, number: int, size: int, seed: int, epoch: int) -> slice:
    """Returns the places in `order` that a batch of an epoch takes.

    `order` is cut into batches, which come in a random order.

    Args:
      number: number of the batch in its epoch, from 0.
      size: rows of a batch; the last batch of the longest histories may have
        fewer.
      seed: seed of the order, which is another one in each epoch.
      epoch: number of the epoch.
    """
    batches = -(-len(self.order) // size)
    cut = counter_rng.permute(np.array([number]), batches, seed, epoch)
    start = int(cut[0]) * size
    return slice(start, min(start + size, len(self.order)))

  def shuffled(self, place: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Returns the examples at some places of an epoch's order.

    Args:
      place: int [n], places in `order`.
      seed: the seed of the run.
      epoch: number of the epoch; each shuffles the examples within their length
        groups anew.
    """
    group = np.searchsorted(self.first, place, side='right') - 1
    moved = np.empty(len(place), np.int64)
    for value in np.unique(group):
      in_group = group == value
      start, stop = self.first[value : value + 2]
      moved[in_group] = start + counter_rng.permute(
        place[in_group] - start, int(stop - start), seed, epoch
      )
    return self.order[moved]


def group(
  needed: np.ndarray, max_padding: float, shortest: int
) -> LengthGroups:
  """Groups examples by the fewest lengths that leave little enough padding.

  Batches that straddle two groups take the longer length; this is not counted.

  Args:
    needed: int [examples], number of slots that each example's history takes.
    max_padding: share of all slots that may be padding.
    shortest: least number of slots of a history.
  """
  needed = np.maximum(needed, shortest)
  lengths = _fewest(needed, max_padding)
  number = np.searchsorted(lengths, needed)
  order = np.argsort(number, kind='stable')
  first = np.searchsorted(number[order], np.arange(len(lengths) + 1))
  return LengthGroups(lengths, order, first)


def _rounded(needed: np.ndarray) -> np.ndarray:
  """Rounds up to few distinct lengths, none above the longest needed.

  By a thirty-second at most, where that is more than 8.
  """
  _, exponent = np.frexp(needed)
  unit = np.maximum(_UNIT, 1 << np.maximum(exponent - _BITS - 1, 0))
  return np.minimum(-(-needed // unit) * unit, needed.max())


def _fewest(needed: np.ndarray, max_padding: float) -> np.ndarray:
  """The fewest lengths for the share of padding; all of them if too many.

  Of k lengths those with the fewest slots in all, by dynamic programming.
  """
  values, counts = np.unique(_rounded(needed), return_counts=True)
  below = np.cumsum(counts)
  # slots[i, j]: of one length for the values i + 1 to j; -1 stands for none.
  before = np.append(0, below)
  slots = (below[None, :] - before[:, None]) * values[None, :].astype(float)
  slots[np.arange(len(values) + 1)[:, None] > np.arange(len(values))] = np.inf
  real = needed.sum()
  best, choices = slots[0], []
  for _ in range(len(values) - 1):
    if best[-1] * (1 - max_padding) <= real:
      break
    total = best[:, None] + slots[1:]
    choices.append(total.argmin(axis=0))
    best = total.min(axis=0)
  ends = [len(values) - 1]
  for choice in reversed(choices):
    ends.append(int(choice[ends[-1]]))
  return values[ends[::-1]]
