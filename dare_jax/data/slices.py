"""Which moments have a positive that is in the history they see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dare_jax import types

FIELDS = ('item', 'category')


def seen(
  history: types.History,
  end: np.ndarray,
  start: np.ndarray | None,
  ids: Mapping[str, np.ndarray],
  label: np.ndarray,
) -> dict[str, np.ndarray]:
  """Returns by field whether a positive of each moment is in its history.

  Args:
    history: histories [b, l] with the ids of the store, as the targets have:
      two items that a model does not tell apart are two items.
    end: int [b, m], what a moment sees ends there.
    start: int [b, m], where that begins; None: with the window.
    ids: field -> int [b, m, c], all targets of each moment.
    label: float [b, m, c], above 0.5 for positives.

  Returns:
    For each of `FIELDS` bool [b, m].
  """
  index = np.arange(history.mask.shape[1])
  flags = {field: np.zeros(end.shape, bool) for field in FIELDS}
  for moment, slot in np.ndindex(label.shape[1:]):
    is_positive = label[:, moment, slot] > 0.5
    if not is_positive.any():
      continue
    visible = history.mask & (index < end[:, moment, None])
    if start is not None:
      visible &= index >= start[:, moment, None]
    for field, flag in flags.items():
      same = history.ids[field] == ids[field][:, moment, slot, None]
      flag[:, moment] |= is_positive & (same & visible).any(axis=1)
  return flags
