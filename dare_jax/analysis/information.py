"""How much a behavior tells about a click: exact counts, mutual information.

Among the training rows with the target category t, let X say that the behavior
at position p (1 is the most recent) is of category c, and Y that the target was
clicked. A cell (t, c, p) is worth, in bits,

    I(X; Y | t) = sum_xy P(x, y | t) log2 [P(x, y | t) / (P(x | t) P(y | t))]

(arXiv 2410.02604, section 5). Counts are sparse, and made for a few target
categories at a time, so that memory does not grow with the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses

import numpy as np

# The published scripts put this in the place of counts that are not there.
OFFICIAL_MISSING = 1e-5
_CHUNK_KEYS = 1 << 24  # (row, behavior) pairs held at once
_MAX_KEY = 1 << 32
_CRITICAL = 3.841  # of chi-square with one degree of freedom, at 5 %


@dataclasses.dataclass(frozen=True)
class Histories:
  """Categories of all behaviors, and how far back a row sees them.

  Attributes:
    category: int32 [events], each user's in order.
    offsets: int64 [users + 1].
    length: behaviors that a row sees at most.
    num_categories: ids are below it.
  """

  category: np.ndarray
  offsets: np.ndarray
  length: int
  num_categories: int

  def before(
    self, user: np.ndarray, end: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the categories before rows, the most recent first.

    Args:
      user: int [n], row of each user in the store.
      end: int [n]; a row sees its user's events in rows of the store below
        this.

    Returns:
      int32 [n, length], and a mask of those that are there; 0 elsewhere.
    """
    row = end[:, None] - 1 - np.arange(self.length)
    seen = row >= self.offsets[user][:, None]
    category = self.category[np.maximum(row, 0)]
    category[~seen] = 0
    return category, seen


@dataclasses.dataclass(frozen=True)
class Rows:
  """Targets with a label, arrays of equal length [n].

  Attributes:
    target: int32, category of the target.
    label: bool, clicked or not.
    user: int32, row of the user in the store.
    end: int64, as `Histories.before` takes.
  """

  target: np.ndarray
  label: np.ndarray
  user: np.ndarray
  end: np.ndarray

  def take(self, rows: np.ndarray) -> Rows:
    """Returns the rows at these indices."""
    return Rows(
      self.target[rows], self.label[rows], self.user[rows], self.end[rows]
    )


@dataclasses.dataclass(frozen=True)
class Cells:
  """The counts of one target category, of cells that occur.

  Attributes:
    target: the id of the target category.
    length: behaviors in a history, at most.
    key: int64 [n], category * length + position - 1, ascending.
    clicked: int64 [n], clicked rows with this behavior there.
    other: int64 [n], rows with this behavior there that were not clicked.
    num_clicked: number of all clicked rows.
    num_other: number of all rows that were not clicked.
  """

  target: int
  length: int
  key: np.ndarray
  clicked: np.ndarray
  other: np.ndarray
  num_clicked: int
  num_other: int

  @property
  def category(self) -> np.ndarray:
    """The category of the behavior of each cell, int64 [n]."""
    return self.key // self.length

  @property
  def position(self) -> np.ndarray:
    """Places back from the target, int64 [n]; 1 is the last behavior."""
    return self.key % self.length + 1

  def information(self, missing: float = 0.0) -> np.ndarray:
    """Returns I(X; Y | t) of the cells, float64 [n], in bits."""
    return mutual_information(
      self.clicked, self.other, self.num_clicked, self.num_other, missing
    )

  def dense(
    self, values: np.ndarray, absent: float, num_categories: int
  ) -> np.ndarray:
    """Returns values by category and position - 1, [categories, length]."""
    table = np.full(num_categories * self.length, absent, values.dtype)
    table[self.key] = values
    return table.reshape(num_categories, self.length)


def mutual_information(
  clicked: np.ndarray,
  other: np.ndarray,
  num_clicked: int,
  num_other: int,
  missing: float = 0.0,
) -> np.ndarray:
  """Returns the mutual information of X and Y from counts, in bits.

  >>> mutual_information(np.array([2, 1]), np.array([0, 1]), 2, 2)
  array([1., 0.])

  Args:
    clicked: number of rows with X = 1 and Y = 1, an array of any shape.
    other: number of rows with X = 1 and Y = 0, of the shape of `clicked`.
    num_clicked: number of rows with Y = 1.
    num_other: number of rows with Y = 0.
    missing: what stands for `clicked` or `other` where that is 0; 0 gives the
      exact value, in which 0 log 0 = 0.

  Returns:
    float64, the shape of the counts; NaN where a count exceeds its rows, as a
    replaced one may.
  """
  x1 = np.maximum(np.asarray(clicked, np.float64), missing)
  x0 = np.maximum(np.asarray(other, np.float64), missing)
  total = float(num_clicked + num_other)
  result = np.zeros(np.broadcast_shapes(x1.shape, x0.shape))
  for with_x, without_x, of_y in (
    (x1, x0, float(num_clicked)),
    (x0, x1, float(num_other)),
  ):
    both = with_x + without_x
    for count, of_x in ((with_x, both), (of_y - with_x, total - both)):
      expected = of_x * of_y
      part = np.full(result.shape, np.nan)
      np.divide(count * total, expected, out=part, where=expected > 0)
      bits = np.zeros(result.shape)
      np.log2(part, out=bits, where=part > 0)
      bits[count < 0] = np.nan
      result += count / total * bits
  return np.maximum(result, 0.0)  # Rounding may leave less.


class Significance:
  """Counts the cells whose information is more than chance would make.

  Twice the rows times the information, in nats, is the G statistic of the
  hypothesis that behavior and click are independent: with independent rows it
  is above `_CRITICAL` in 5 % of cells that tell nothing. Rows of one user are
  not independent, so that more than that are.

  Attributes:
    cells: number of cells with `MIN_SAMPLES` rows or more.
    above: number of these cells whose statistic is above the bound.
  """

  MIN_SAMPLES = 50

  def __init__(self) -> None:
    self.cells = self.above = 0

  def visit(self, cells: Cells) -> None:
    """Adds the cells of a target category."""
    enough = cells.clicked + cells.other >= self.MIN_SAMPLES
    total = cells.num_clicked + cells.num_other
    statistic = 2 * total * np.log(2) * cells.information()[enough]
    self.cells += int(enough.sum())
    self.above += int((statistic > _CRITICAL).sum())

  def share(self) -> float | None:
    """Returns the share of cells above the bound; None without cells."""
    return self.above / self.cells if self.cells else None


def sweep(
  histories: Histories,
  rows: Rows,
  targets: np.ndarray,
  chunk: int = _CHUNK_KEYS,
) -> Iterator[Cells]:
  """Yields the counts of target categories, in their order.

  The keys of rows are sorted and counted for some categories at a time. A
  category with so many rows that they fill a table is counted in one, some
  rows at a time. Memory is bounded by `chunk` and the size of that table.

  Args:
    histories: the histories that the rows see.
    rows: the rows of the training split.
    targets: int [t], ids of the target categories, ascending.
    chunk: number of pairs of a row and a behavior that are held at once.
  """
  order = np.argsort(rows.target, kind='stable')
  by_target = rows.target[order]
  first = np.searchsorted(by_target, targets, side='left')
  last = np.searchsorted(by_target, targets, side='right')
  table = 2 * histories.num_categories * histories.length
  at_once = chunk // histories.length
  begin = 0
  while begin < len(targets):
    if (last[begin] - first[begin]) * histories.length > table // 4:
      own = order[first[begin] : last[begin]]
      yield _count_in_table(histories, rows, int(targets[begin]), own, chunk)
      begin += 1
      continue
    stop = begin + 1
    while stop < len(targets) and stop - begin < _MAX_KEY / table:
      size = last[stop] - first[stop]
      taken = (last[begin:stop] - first[begin:stop]).sum()
      if size * histories.length > table // 4 or taken + size > at_once:
        break
      stop += 1
    members = [
      order[first[index] : last[index]] for index in range(begin, stop)
    ]
    yield from _count_sorted(histories, rows, targets[begin:stop], members)
    begin = stop


def _count_in_table(
  histories: Histories, rows: Rows, target: int, own: np.ndarray, chunk: int
) -> Cells:
  """Counts one category's rows in a table of all its cells."""
  size = 2 * histories.num_categories * histories.length
  counts = np.zeros(size, np.int64)
  step = max(1, chunk // histories.length)
  for start in range(0, len(own), step):
    part = rows.take(own[start : start + step])
    key = _keys(histories, part, np.zeros(len(part.target), np.int64))
    counts += np.bincount(key, minlength=size)
  other, clicked = counts.reshape(-1, 2).T
  key = np.flatnonzero(other + clicked)
  return _cells(histories, rows, target, own, (key, clicked[key], other[key]))


def _count_sorted(
  histories: Histories,
  rows: Rows,
  targets: np.ndarray,
  members: list[np.ndarray],
) -> Iterator[Cells]:
  """Counts the rows of several categories by sorting their keys."""
  part = rows.take(np.concatenate(members))
  sizes = [len(own) for own in members]
  key = _keys(histories, part, np.repeat(np.arange(len(members)), sizes))
  stride = histories.num_categories * histories.length
  if 2 * stride * len(members) <= _MAX_KEY:
    key = key.astype(np.uint32)  # Sorted in half the time.
  key.sort()
  new = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
  count = np.diff(np.append(new, len(key)))
  key, label = key[new].astype(np.int64) >> 1, key[new] & 1
  new = np.append(True, key[1:] != key[:-1])[: len(key)]
  cell = np.cumsum(new) - 1
  key = key[new]
  clicked = np.bincount(cell, count * label, len(key)).astype(np.int64)
  other = np.bincount(cell, count * (1 - label), len(key)).astype(np.int64)
  bounds = np.searchsorted(key, np.arange(len(members) + 1) * stride)
  for index, own in enumerate(members):
    mine = slice(bounds[index], bounds[index + 1])
    counts = key[mine] - index * stride, clicked[mine], other[mine]
    yield _cells(histories, rows, int(targets[index]), own, counts)


def _keys(histories: Histories, part: Rows, group: np.ndarray) -> np.ndarray:
  """Returns ((group, category, position - 1), label) of all that rows see."""
  category, seen = histories.before(part.user, part.end)
  key = group[:, None] * histories.num_categories + category
  key *= histories.length
  key += np.arange(histories.length)
  key *= 2
  key += part.label[:, None]
  return key.ravel() if seen.all() else key[seen]


def _cells(
  histories: Histories,
  rows: Rows,
  target: int,
  own: np.ndarray,
  counts: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Cells:
  clicked = int(rows.label[own].sum())
  return Cells(target, histories.length, *counts, clicked, len(own) - clicked)
