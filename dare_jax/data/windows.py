"""Moments of one user that share a window of history, for cheaper training.

A window of `history_length` behaviors before its latest moment, and `slack`
more before these, shows each of its moments all that the moment would see in a
window of its own, as long as their ends lie no more than `slack` apart.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dare_jax.data import splits

# This share of windows is to be full, rather than cut short by the slack.
_FULL = 0.9


@dataclasses.dataclass(frozen=True)
class Windows:
  """Moments in groups of up to `size`: each moment is in exactly one.

  Attributes:
    size: the most moments that a window may hold.
    slack: behaviors beyond the history length; bounds the span of ends.
    order: int64, numbers of the moments, each user's by time.
    first: int64, a window's first place in `order`; ends with len(order).
  """

  size: int
  slack: int
  order: np.ndarray
  first: np.ndarray

  def __len__(self) -> int:
    return len(self.first) - 1

  def borders(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the first and of the last moment of each."""
    return self.order[self.first[:-1]], self.order[self.first[1:] - 1]

  def moments(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns moment numbers of windows, and which are real: [n, size].

    Past the last moment of a window that moment is repeated.
    """
    place = self.first[index][:, None] + np.arange(self.size)
    stop = self.first[index + 1][:, None]
    return self.order[np.minimum(place, stop - 1)], place < stop


def group(moments: splits.Moments, size: int, max_slack: int) -> Windows:
  """Groups consecutive moments of each user, as many a window as fit.

  Args:
    moments: the moments of a split.
    size: the most moments that a window may hold.
    max_slack: bound on the slack. Below it, the slack is the 90th percentile
      of how far the ends of `size` consecutive moments lie apart, made a
      multiple of 8: longer windows cost more than fuller ones save.
  """
  order = np.lexsort((moments.end, moments.user))
  user, end = moments.user[order].astype(np.int64), moments.end[order]
  first_of_user = np.flatnonzero(np.diff(user, prepend=-1))
  slack = min(_slack(first_of_user, end, size), max_slack)
  # Ends rise with the user too; this keeps users over a slack apart.
  key = end + user * (slack + 1)
  current, windows = first_of_user, []
  stop_of_user = np.append(first_of_user[1:], len(user))
  while len(current):  # One more window of every user that has moments left.
    windows.append(current)
    reach = np.searchsorted(key, key[current] + slack, side='right')
    current = np.minimum(current + size, reach)
    left = current < stop_of_user
    current, stop_of_user = current[left], stop_of_user[left]
  first = np.sort(np.concatenate([*windows, [len(user)]]))
  return Windows(size, slack, order, first)


def _slack(first_of_user: np.ndarray, end: np.ndarray, size: int) -> int:
  """What is enough for most runs of `size` moments, a multiple of 8."""
  counts = np.diff(first_of_user, append=len(end))
  start_of_own = np.repeat(first_of_user, counts)
  stop_of_own = start_of_own + np.repeat(counts, counts)
  runs = np.flatnonzero((np.arange(len(end)) - start_of_own) % size == 0)
  last = np.minimum(runs + size, stop_of_own[runs]) - 1
  span = np.quantile(end[last] - end[runs], _FULL, method='higher')
  return -(-int(span) // 8) * 8
