"""Searches and models beside the relevance that a made log has planted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import planted_information
from dare_jax.analysis import ranking
from dare_jax.analysis import resampling
from dare_jax.logs.builders import synthetic

MIN_SAMPLES = 700  # rows that have the behavior of a cell
_BINS = 20
_CORRELATIONS = ('spearman', 'spearman_expected', 'spearman_bound')
_CHUNK = 2_000_000  # (row, behavior) pairs held at once


class Cells:
  """Collects relevance and information of cells with planted relevance."""

  def __init__(
    self,
    truth: synthetic.Truth,
    expected: planted_information.Expected | None = None,
  ) -> None:
    """Starts with nothing.

    Args:
      truth: the planted relevance.
      expected: gives the information that it implies, if that is known.
    """
    self._truth = truth
    self._expected = expected
    self._pairs: list[np.ndarray] = []

  def visit(self, cells: information.Cells) -> None:
    """Adds the cells of a target category that have enough samples."""
    enough = cells.clicked + cells.other >= MIN_SAMPLES
    relevance = synthetic.relevance(
      self._truth,
      np.full(int(enough.sum()), cells.target),
      cells.category[enough],
      cells.position[enough],
    )
    bits = cells.information()[enough]
    implied = np.zeros(len(bits))
    if self._expected is not None:
      implied = self._expected(cells)[enough]
    pairs = np.stack([relevance, bits, implied])[:, relevance > 0]
    self._pairs.append(pairs)

  def data(self) -> dict[str, Any]:
    """Returns rank correlations, and medians over bins of relevance.

    'spearman' is that of information and relevance; 'spearman_expected' that
    of information and what is expected of it; 'spearman_bound' that of the
    latter and relevance, which no number of rows would change.
    """
    none = [np.zeros((3, 0))]
    relevance, bits, implied = np.concatenate(self._pairs or none, axis=1)
    found: dict[str, Any] = {'num_cells': len(bits), 'min_samples': MIN_SAMPLES}
    if len(bits) < 2:
      return found | {
        **dict.fromkeys(_CORRELATIONS),
        'relevance': [],
        'bits': [],
      }
    order = np.argsort(relevance, kind='stable')
    parts = [p for p in np.array_split(order, _BINS) if len(p)]
    pairs = [(relevance, bits), (bits, implied), (relevance, implied)]
    known = pairs if self._expected is not None else pairs[:1]
    values = [float(stats.spearmanr(*pair).statistic) for pair in known]
    return found | {
      **dict.fromkeys(_CORRELATIONS),
      **dict(zip(_CORRELATIONS, values, strict=False)),
      'relevance': [float(np.median(relevance[part])) for part in parts],
      'bits': [
        np.quantile(bits[part], [0.25, 0.5, 0.75]).tolist() for part in parts
      ],
    }


def search_curves(
  truth: synthetic.Truth,
  lists: Mapping[str, forward.Arrays],
  rows: information.Rows,
  histories: information.Histories,
  keep: int,
) -> dict[str, Any]:
  """Returns NDCG@k of each model's own search against planted relevance.

  Args:
    truth: the planted relevance.
    lists: label -> what `forward.rankings` returned.
    rows: the rows of the test split; only clicked rows count.
    histories: the histories that the rows see.
    keep: the largest k.
  """
  clicked = np.flatnonzero(rows.label)
  step = max(1, _CHUNK // histories.length)
  curves: dict[str, list[np.ndarray]] = {label: [] for label in lists}
  for start in range(0, len(clicked), step):
    index = clicked[start : start + step]
    part = rows.take(index)
    category, is_there = histories.before(part.user, part.end)
    position = np.arange(1, histories.length + 1)
    gain = synthetic.relevance(
      truth, part.target[:, None], category, position[None]
    )
    gain = np.where(is_there, gain, -np.inf)
    for label, of in lists.items():
      found = of['found'][index, :keep]
      curves[label].append(ranking.ndcg_curve(gain, found, keep))
  joined = {label: np.concatenate(parts) for label, parts in curves.items()}
  return {
    label: {
      'curve': np.nanmean(curve, axis=0).tolist(),
      'ndcg': resampling.mean_interval(curve[:, -1], rows.user[clicked]),
    }
    for label, curve in joined.items()
  }
