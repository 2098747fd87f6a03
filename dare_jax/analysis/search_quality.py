"""Does a search find what mutual information says matters? (Figure 9a)

For a test target of category t, each behavior of its history is worth the
mutual information of its cell (t, its category, its position), from the
training rows. Two definitions, of arXiv 2410.02604 and of its scripts:

- `correct`: exact counts; lists are what the model's own search keeps; NDCG@k
  has the ideal list of k below the line; a hit rate is the share of the best k
  that the first k hold. Rows: all of a category with enough training rows.
- `official`: counts of 0 count as 1e-5; lists go by category and position
  alone; NDCG@k has the ideal list of 20 below the line at each k; hits are
  counted among the best 20. Rows with many cells below 50 rows, or with a cell
  that holds all rows of one label, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import ranking
from dare_jax.analysis import resampling

KEEP = 20  # at most; no more than every search keeps
MIN_ROWS = 700  # training rows of a target category
_MIN_COUNT = 50  # rows of each label in a cell, by the official rule
_CHUNK = 2_000_000  # (row, behavior) pairs held at once
# From the official definition to the correct one, a change at a time.
STEPS = ('official', 'exact counts', 'all rows', 'own search')


class Quality:
  """Adds up the curves of several models, a target category at a time.

  Attributes:
    keep: length of the lists that are compared.
    ndcg: label -> step of `STEPS` -> NDCG@keep of each row; NaN where a row
      does not count.
    num_rows: definition -> rows that count.
  """

  def __init__(
    self,
    lists: Mapping[str, forward.Arrays],
    rows: information.Rows,
    histories: information.Histories,
  ) -> None:
    """Starts with nothing.

    Args:
      lists: label -> what `forward.rankings` returned.
      rows: the rows of the test split, in the order of the lists.
      histories: what they see.
    """
    self._lists = lists
    lengths = [of['found'].shape[1] for of in lists.values()]
    self.keep = min(KEEP, *lengths)
    self._rows = rows
    self._histories = histories
    self._order = np.argsort(rows.target, kind='stable')
    self._by_target = rows.target[self._order]
    self._curves: dict[tuple[str, str], _Mean] = {}
    size = len(rows.target)
    self.ndcg = {
      label: {step: np.full(size, np.nan) for step in STEPS} for label in lists
    }
    self.num_rows = {'correct': 0, 'official': 0}

  def visit(self, cells: information.Cells) -> Iterator[Seen]:
    """Adds the test rows of a target category; yields them, some at a time."""
    bounds = [cells.target, cells.target + 1]
    first, last = np.searchsorted(self._by_target, bounds)
    if first == last:
      return
    tables = Tables(cells, self._histories.num_categories)
    step = max(1, _CHUNK // self._histories.length)
    for start in range(first, last, step):
      index = self._order[start : min(start + step, last)]
      rows = self._rows.take(index)
      category, is_there = self._histories.before(rows.user, rows.end)
      seen = Seen(index, category, is_there, tables.exact(category, is_there))
      self._add_correct(seen, rows.target)
      self._add_official(seen, tables)
      yield seen

  def data(self) -> dict[str, Any]:
    """Returns the means, as JSON has them."""
    return {
      'k': list(range(1, self.keep + 1)),
      'min_rows': MIN_ROWS,
      'num_rows': self.num_rows,
      'steps': list(STEPS),
      'models': {label: self._of(label) for label in self._lists},
    }

  def _of(self, label: str) -> dict[str, Any]:
    curves = {
      name: mean.values() for (of, name), mean in self._curves.items()
      if of == label
    }  # fmt: skip
    user = self._rows.user
    steps = [
      resampling.mean_interval(self.ndcg[label][step], user) for step in STEPS
    ]
    return {**curves, 'ndcg_by_step': steps}

  def _add_correct(self, seen: Seen, target: np.ndarray) -> None:
    self.num_rows['correct'] += len(seen.index)
    best = ranking.best(seen.information, self.keep)
    same = seen.is_there & (seen.category == target[:, None])
    for label, lists in self._lists.items():
      found = lists['found'][seen.index, : self.keep]
      ndcg = ranking.ndcg_curve(seen.information, found, self.keep)
      self.ndcg[label]['own search'][seen.index] = ndcg[:, -1]
      plain = lists['by_category'][seen.index, : self.keep]
      rough = ranking.ndcg_curve(seen.information, plain, self.keep)
      self.ndcg[label]['all rows'][seen.index] = rough[:, -1]
      self._add(label, 'ndcg', ndcg)
      self._add(label, 'hit_rate', ranking.hit_curve(found, best, self.keep))
      recall = ranking.recall_curve(found, same, self.keep)
      self._add(label, 'same_category', recall)

  def _add_official(self, seen: Seen, tables: Tables) -> None:
    kept = tables.is_official(seen.category, seen.is_there)
    index = seen.index[kept]
    if not len(index):
      return
    self.num_rows['official'] += len(index)
    gain = tables.official(seen.category[kept], seen.is_there[kept])
    best = ranking.best(gain, self.keep)
    for label, lists in self._lists.items():
      plain = lists['by_category'][index, : self.keep]
      ndcg = ranking.ndcg_curve(gain, plain, self.keep, of_whole=True)
      hits = ranking.hit_curve(plain, best, self.keep, of_whole=True)
      self._add(label, 'official_ndcg', ndcg)
      self._add(label, 'official_hits', hits)
      of = self.ndcg[label]
      of['official'][index] = ndcg[:, -1]
      of['exact counts'][index] = of['all rows'][index]

  def _add(self, label: str, name: str, curves: np.ndarray) -> None:
    self._curves.setdefault((label, name), _Mean(self.keep)).add(curves)


@dataclasses.dataclass(frozen=True)
class Seen:
  """Some test rows of one target category, and what their histories are worth.

  Attributes:
    index: int [n], numbers of the rows in the test split.
    category: int [n, length], the categories of the behaviors, the most recent
      first.
    is_there: bool [n, length], False where there are no more behaviors.
    information: float64 [n, length], the mutual information by exact counts;
      -inf where no behavior is there.
  """

  index: np.ndarray
  category: np.ndarray
  is_there: np.ndarray
  information: np.ndarray


class Tables:
  """The information of one target category's cells, for look-up."""

  def __init__(self, cells: information.Cells, num_categories: int) -> None:
    self._cells = cells
    self._num_categories = num_categories
    self._exact = self._dense(cells.information(), 0.0)
    enough = np.minimum(cells.clicked, cells.other) >= _MIN_COUNT
    self._enough = self._dense(enough, False)
    whole = cells.clicked >= cells.num_clicked
    self._whole = self._dense(whole | (cells.other >= cells.num_other), False)

  def exact(self, category: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """Returns the information of behaviors; -inf where there is none."""
    return np.where(is_there, self._at(self._exact, category), -np.inf)

  def official(self, category: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """Returns the information of behaviors, with 1e-5 for each count of 0."""
    missing = information.OFFICIAL_MISSING
    absent = information.mutual_information(
      np.zeros(1), np.zeros(1),
      self._cells.num_clicked, self._cells.num_other, missing,
    )  # fmt: skip
    values = self._dense(self._cells.information(missing), float(absent[0]))
    return np.where(is_there, self._at(values, category), -np.inf)

  def is_official(
    self, category: np.ndarray, is_there: np.ndarray
  ) -> np.ndarray:
    """Returns which rows the published scripts count, bool [n]."""
    length = category.shape[1]
    few = (is_there & ~self._at(self._enough, category)).sum(axis=1)
    whole = (is_there & self._at(self._whole, category)).any(axis=1)
    # 20 of 200 there.
    return (few <= length // 10) & ~whole

  def _dense(self, values: np.ndarray, absent: Any) -> np.ndarray:
    return self._cells.dense(values, absent, self._num_categories)

  def _at(self, table: np.ndarray, category: np.ndarray) -> np.ndarray:
    return table[category, np.arange(category.shape[1])]


class _Mean:
  """The mean of rows of curves; NaN counts for nothing."""

  def __init__(self, size: int) -> None:
    self._sum = np.zeros(size)
    self._count = np.zeros(size, np.int64)

  def add(self, curves: np.ndarray) -> None:
    """Adds curves, float [rows, points]; NaN is left out."""
    self._sum += np.nansum(curves, axis=0)
    self._count += (~np.isnan(curves)).sum(axis=0)

  def values(self) -> list[float] | None:
    """Returns the mean of each point; None where one was never defined."""
    if not self._count.all():
      return None
    return (self._sum / self._count).tolist()
