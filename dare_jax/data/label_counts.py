"""How many targets of a split have which label, known before any step."""

from __future__ import annotations

import dataclasses

import numpy as np

from dare_jax.data import options
from dare_jax.data import splits
from dare_jax.store import history_store


@dataclasses.dataclass(frozen=True)
class LabelCounts:
  """Targets by label.

  Attributes:
    positive: number of targets with label 1.
    negative: number of targets with label 0.
  """

  positive: int
  negative: int

  @property
  def one_class(self) -> str | None:
    """What all labels are, in words; None where there are both."""
    if self.positive and self.negative:
      return None
    total = self.positive + self.negative
    return f'all {total:,} labels are {int(self.positive > 0)}'


def count(
  store: history_store.HistoryStore,
  moments: splits.Moments,
  data: options.PipelineOptions,
  num_rows: int | None = None,
) -> LabelCounts:
  """Returns the labels of a split's targets.

  Args:
    store: the history store.
    moments: the split's moments.
    data: how rows are made.
    num_rows: counts only so many first rows of the split, which are single
      targets without `group_candidates`. None: counts all rows.
  """
  width = 1 + data.num_negatives
  targets = width * len(moments)
  if num_rows is not None:
    targets = num_rows * (width if data.group_candidates else 1)
  whole, rest = divmod(targets, width)
  kept = whole + (rest > 0)
  if store.impressions is None:
    return LabelCounts(kept, targets - kept)
  first, number = moments.target[:kept], moments.count[:kept].copy()
  if rest:  # The targets of the last moment are spread over several rows.
    number[-1] = min(number[-1], rest)
  label = store.impressions.columns['label']
  positive = sum(
    int(np.count_nonzero(label[first[number > slot] + slot]))
    for slot in range(width)
  )
  return LabelCounts(positive, int(number.sum()) - positive)
