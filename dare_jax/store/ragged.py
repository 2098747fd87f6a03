"""Searches in the rows of all users at once."""

from __future__ import annotations

import numpy as np


def lower_bound(
  values: np.ndarray, offsets: np.ndarray, user: np.ndarray, value: np.ndarray
) -> np.ndarray:
  """Returns the first row of each user whose value is not less than asked.

  A binary search in the rows of all users together; where there is no such row,
  it is the one after the user's last.

  Args:
    values: [rows], ascending within each user's rows.
    offsets: int64 [users + 1]; rows of user u are offsets[u]:offsets[u + 1].
    user: int [n], the user in whose rows to look.
    value: [n], the value to look for.

  Returns:
    int64 [n], the number of the row.
  """
  low, stop = offsets[user], offsets[user + 1]
  high = stop.copy()
  for _ in range(int((stop - low).max(initial=0)).bit_length()):
    middle = (low + high) >> 1
    inside = middle < high
    found = values[np.where(inside, middle, 0)]
    less = inside & (found < value)
    low = np.where(less, middle + 1, low)
    high = np.where(less, high, np.minimum(high, middle))
  return low
