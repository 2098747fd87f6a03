"""How much of what one search keeps another one finds."""

from __future__ import annotations

import numpy as np


def shares(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """Returns the share of each row's wanted behaviors that are found.

  Args:
    found: indices [..., k]; below 0, none.
    wanted: indices [..., k] of the exact search; below 0, none.

  Returns:
    float [...], the share of `wanted` that is in `found`; NaN where nothing is
    wanted.
  """
  real = wanted >= 0
  hit = (wanted[..., None] == found[..., None, :]).any(axis=-1) & real
  count = real.sum(axis=-1)
  return np.where(count, hit.sum(axis=-1) / np.maximum(count, 1), np.nan)
