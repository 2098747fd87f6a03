"""Packs moments into few shapes of batches, with little padding.

A moment's targets are cut into cells of a few targets each. A window of history
serves as many cells of one user as lie close together, and windows of about one
size make batches. Each shape is compiled once. All of this depends on what is
asked alone, so that a score is the same to the bit whenever it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses

import numpy as np

from dare_jax.data import splits
from dare_jax.data import windows
from dare_jax.prediction import asked as asked_lib

_MAX_CELLS = 32  # of a window
_WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, _MAX_CELLS)
_CELL_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_CELL_COST = 0.5  # of a cell beside that of each of its targets
# What a batch holds at most: targets, behaviors, and scores of both.
_TARGETS, _BEHAVIORS, _SCORES = 1 << 13, 1 << 18, 1 << 24
# Least number, and least share, of windows for which a shape is compiled.
_LEAST_WINDOWS, _LEAST_SHARE = 64, 16


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a model can be asked.

  Attributes:
    history_length: behaviors that a moment sees.
    shortest: slots that a window has at least.
    is_exact: windows have just `history_length` slots, for a model that reads
      padding.
  """

  history_length: int
  shortest: int
  is_exact: bool = False


@dataclasses.dataclass(frozen=True)
class Batch:
  """Windows of one shape, real ones and the first again as padding.

  Attributes:
    length: number of slots of a window.
    moment: int64 [b, m], the moment of each cell.
    first: int64 [b, m], the place of a cell's first target.
    count: int64 [b, m], targets of a cell, 0 in padding.
    size: targets that a cell has room for.
    last: int64 [b], the window's latest moment.
  """

  length: int
  moment: np.ndarray
  first: np.ndarray
  count: np.ndarray
  size: int
  last: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Cells:
  """Cells in the order of their moments."""

  size: int
  moment: np.ndarray
  first: np.ndarray
  count: np.ndarray


def pack(
  asked: asked_lib.Asked, begin: np.ndarray, limits: Limits
) -> Iterator[Batch]:
  """Yields batches that have each target once.

  Args:
    asked: moments and targets.
    begin: int64 [m], row of the first behavior of each moment's user.
    limits: the limits of the model.
  """
  if not asked.first[-1]:
    return
  cells = _cut(asked)
  grouped, slack = _windows(asked, cells, limits)
  longest = limits.history_length + slack
  first, last = (cells.moment[cell] for cell in grouped.borders())
  span = asked.end[last] - asked.end[first]
  needed = np.minimum(
    asked.end[last] - begin[last], limits.history_length + span
  )
  lengths = _sizes(min(limits.shortest, longest), longest)
  if limits.is_exact:
    lengths = np.array([longest])
  width = np.diff(grouped.first)
  # The commonest needs no padding.
  widths = np.union1d(_WIDTHS, np.bincount(width).argmax())
  for length, of_length in _classes(needed, lengths):
    for wide, own in _classes(width[of_length], widths):
      rows = of_length[own]
      for part in _batches(len(rows), int(length), int(wide) * cells.size):
        index = rows[np.where(part < len(rows), part, 0)]
        yield _batch(cells, grouped, index, part < len(rows), length, wide)


def _cut(asked: asked_lib.Asked) -> _Cells:
  """Cuts the targets of all moments into cells of the size that costs least."""
  count = asked.count
  costs = []
  for size in _CELL_SIZES:
    cells = (-(-count // size)).sum()
    costs.append(cells * (size + _CELL_COST))
  size = _CELL_SIZES[len(costs) - 1 - int(np.argmin(costs[::-1]))]
  cells = -(-count // size)
  moment = np.repeat(np.arange(len(count)), cells)
  number = np.arange(len(moment)) - np.repeat(np.cumsum(cells) - cells, cells)
  first = asked.first[moment] + number * size
  left = asked.first[moment + 1] - first
  return _Cells(size, moment, first, np.minimum(left, size))


def _windows(
  asked: asked_lib.Asked, cells: _Cells, limits: Limits
) -> tuple[windows.Windows, int]:
  """Groups cells into the windows that read the fewest behaviors.

  Returns:
    The windows; the slots that they have beyond the history's length.
  """
  user, end = asked.user[cells.moment], asked.end[cells.moment]
  moments = splits.Moments(user, end, end, cells.count)
  length = limits.history_length
  best = None
  for max_slack in (0, length // 2, length):
    if max_slack and (limits.is_exact or best is None):
      break
    found = windows.group(moments, _MAX_CELLS, max_slack)
    slack = _rounded(length + found.slack) - length if found.slack else 0
    cost = len(found) * (length + slack)
    if best is None or cost < best[0]:
      best = (cost, found, slack)
  assert best is not None
  return best[1], best[2]


def _rounded(length: int) -> int:
  """Returns 4, 5, 6 or 7 times a power of two that is enough."""
  unit = 1 << max(0, (length - 1).bit_length() - 3)
  return -(-length // unit) * unit


def _sizes(shortest: int, longest: int) -> np.ndarray:
  """Returns lengths from the longest down, each about half the one before."""
  sizes = [longest]
  while sizes[-1] // 2 >= max(shortest, 8):
    sizes.append(sizes[-1] // 2)
  return np.array(sizes[::-1])


def _classes(
  needed: np.ndarray, sizes: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields sizes and what needs no more, small groups in the next larger."""
  number = np.searchsorted(sizes, needed)
  least = max(_LEAST_WINDOWS, len(needed) // _LEAST_SHARE)
  largest = int(number.max())
  held = np.zeros(0, np.int64)
  for group in np.unique(number).tolist():
    held = np.concatenate([held, np.flatnonzero(number == group)])
    if len(held) >= least or group == largest:
      yield int(sizes[group]), np.sort(held)
      held = held[:0]


def _batches(count: int, length: int, targets: int) -> Iterator[np.ndarray]:
  """Yields the places of batches; places from `count` on are padding."""
  size = min(
    _TARGETS // targets, _BEHAVIORS // length, _SCORES // (targets * length)
  )
  size = max(1, min(size, 1 << (count - 1).bit_length()))
  for start in range(0, count, size):
    yield np.arange(start, start + size)


def _batch(
  cells: _Cells,
  grouped: windows.Windows,
  index: np.ndarray,
  is_real: np.ndarray,
  length: int,
  width: int,
) -> Batch:
  place = grouped.first[index][:, None] + np.arange(width)
  stop = grouped.first[index + 1][:, None]
  cell = grouped.order[np.minimum(place, stop - 1)]
  last = grouped.order[stop[:, 0] - 1]
  count = np.where((place < stop) & is_real[:, None], cells.count[cell], 0)
  return Batch(
    length,
    cells.moment[cell],
    cells.first[cell],
    count,
    cells.size,
    cells.moment[last],
  )
