"""Mutual information beside learned attention, category by position (Figure 8).

For a target category: its ten most frequent behavior categories at the ten most
recent positions. Attention is the softmax of a model's scores over these cells,
by category and position alone. For a picture, either is brought to 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special
from scipy import stats

from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import source as source_lib
from dare_jax.analysis import sources as sources_lib

SIZE = 10
SHOWN = 2  # target categories


class Maps:
  """Collects the information of the grids of all target categories."""

  def __init__(self) -> None:
    self._targets: list[int] = []
    self._categories: list[np.ndarray] = []
    self._information: list[np.ndarray] = []

  def visit(self, cells: information.Cells) -> None:
    """Adds a target category, if ten categories occur close to it."""
    recent = cells.position <= SIZE
    size = np.where(recent, cells.clicked + cells.other, 0)
    by_category = np.bincount(cells.category, size)
    order = np.argsort(-by_category, kind='stable')[:SIZE]
    order = order[order > 0]
    if len(order) < SIZE or not by_category[order[-1]]:
      return
    rank = np.full(len(by_category), -1)
    rank[order] = np.arange(SIZE)
    row = rank[cells.category]
    kept = recent & (row >= 0)
    grid = np.zeros((SIZE, SIZE))
    grid[row[kept], cells.position[kept] - 1] = cells.information()[kept]
    self._targets.append(cells.target)
    self._categories.append(order)
    self._information.append(grid)

  def data(
    self, sources: sources_lib.Sources, name: Callable[[int], str]
  ) -> dict[str, Any] | None:
    """Returns the grids in which models differ most, and how well all agree.

    Args:
      sources: the runs that are compared.
      name: gives the name of a category by its id.

    Returns:
      None where no target category has a grid.
    """
    if not self._targets:
      return None
    bits = np.stack(self._information)
    attention = {
      source.label: self._attention(source) for source in sources.all
    }
    agreement = {
      label: np.array(list(map(correlation, bits, grids)))
      for label, grids in attention.items()
    }
    every = np.stack(list(agreement.values()))
    differ = np.ptp(every, axis=0) if len(every) > 1 else -every[0]
    chosen = np.argsort(-np.nan_to_num(differ, nan=-np.inf), kind='stable')
    return {
      'num_targets': len(bits),
      'agreement': {
        label: float(np.nanmean(values)) for label, values in agreement.items()
      },
      'targets': [
        {
          'target': name(self._targets[index]),
          'categories': [name(i) for i in self._categories[index]],
          'most_bits': float(bits[index].max()),
          'information': scaled(bits[index]).tolist(),
          'attention': {
            label: scaled(grids[index]).tolist()
            for label, grids in attention.items()
          },
          'agreement': {
            label: float(values[index]) for label, values in agreement.items()
          },
        }
        for index in chosen[:SHOWN]
      ],
    }

  def _attention(self, source: source_lib.Source) -> np.ndarray:
    """Returns a model's attention over the grids, [targets, SIZE, SIZE]."""
    scores = forward.category_scores(
      source.run,
      np.array(self._targets),
      np.repeat(np.stack(self._categories), SIZE, axis=1),
      np.tile(np.arange(1, SIZE + 1), SIZE),
    )
    weights = special.softmax(scores.astype(np.float64), axis=1)
    return weights.reshape(-1, SIZE, SIZE)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
  """Returns Spearman's rank correlation; NaN where one side is constant."""
  if not np.ptp(one) or not np.ptp(other):
    return float('nan')
  return float(stats.spearmanr(one.ravel(), other.ravel()).statistic)


def scaled(grid: np.ndarray) -> np.ndarray:
  """Returns a grid brought to 0 to 1; 0 where it is constant.

  >>> scaled(np.array([1.0, 2.0, 5.0]))
  array([0.  , 0.25, 1.  ])
  """
  low, high = grid.min(), grid.max()
  return (grid - low) / (high - low) if high > low else np.zeros_like(grid)
