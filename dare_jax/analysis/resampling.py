"""Means and their intervals over users, by the cluster bootstrap."""

from __future__ import annotations

import numpy as np

REPLICATES = 200


def mean_interval(
  values: np.ndarray, user: np.ndarray, replicates: int = REPLICATES
) -> dict[str, float] | None:
  """Returns the mean of values and its 95 % interval over users.

  Users are drawn with replacement, all values of a user together.

  Args:
    values: float [n], one value of each row; NaN is left out.
    user: int [n], the user of each row.
    replicates: number of resamplings.

  Returns:
    'mean', 'low' and 'high'; None where all values are NaN.
  """
  there = ~np.isnan(values)
  if not there.any():
    return None
  _, group = np.unique(user[there], return_inverse=True)
  sums = np.bincount(group, values[there])
  counts = np.bincount(group)
  rng = np.random.default_rng(len(counts))
  means = np.empty(replicates)
  for index in range(replicates):
    drawn = rng.integers(len(counts), size=len(counts))
    means[index] = sums[drawn].sum() / counts[drawn].sum()
  low, high = np.percentile(means, [2.5, 97.5])
  mean = float(sums.sum() / counts.sum())
  return {'mean': mean, 'low': float(low), 'high': float(high)}
