"""What is asked of a model: moments, and the targets of each."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Asked:
  """Targets grouped by moment, moments by user and time.

  A moment is a user, the end of what is seen of the log, the values of context
  fields, and the time itself where the model reads it; its targets share one
  pass over its history.

  Attributes:
    user: int64 [m], rows of users in the log, ascending.
    end: int64 [m], rows of the log below it are seen; ascending in each user.
    context: field -> int32 [m], ids of the context fields.
    first: int64 [m + 1], a moment's first place among the targets.
    targets: field -> int32 [n], by moment.
    time: int64 [m], seconds since 1970; None: the model reads no times.
  """

  user: np.ndarray
  end: np.ndarray
  context: Mapping[str, np.ndarray]
  first: np.ndarray
  targets: Mapping[str, np.ndarray]
  time: np.ndarray | None = None

  @property
  def count(self) -> np.ndarray:
    """Targets of each moment: int64 [m]."""
    return np.diff(self.first)


@dataclasses.dataclass(frozen=True)
class Moments:
  """The distinct moments of rows, in the order that `Asked` wants.

  Attributes:
    user: int64 [m], rows of users in the log.
    end: int64 [m], rows of the log below it are seen.
    context: field -> int32 [m], ids of the context fields.
    of_row: int64 [n], the number of each row's moment.
    time: int64 [m], seconds since 1970; None: the model reads no times.
  """

  user: np.ndarray
  end: np.ndarray
  context: Mapping[str, np.ndarray]
  of_row: np.ndarray
  time: np.ndarray | None = None


def moments(
  user: np.ndarray,
  end: np.ndarray,
  context: Mapping[str, np.ndarray],
  time: np.ndarray | None = None,
) -> Moments:
  """Returns the distinct moments of rows.

  Args:
    user: int64 [n], row of each row's user in the log.
    end: int64 [n], for each row: rows of the log below it are seen.
    context: field -> int32 [n], ids of the context fields.
    time: int64 [n], seconds since 1970; None: the model reads no times.
  """
  keys = [user, end, *context.values()]
  keys += [] if time is None else [time]
  order = np.lexsort(keys[::-1])
  is_new = np.zeros(len(user), bool)
  is_new[:1] = True
  for key in keys:
    sorted_key = key[order]
    is_new[1:] |= sorted_key[1:] != sorted_key[:-1]
  of_row = np.empty(len(user), np.int64)
  of_row[order] = np.cumsum(is_new) - 1
  picked = order[is_new]
  return Moments(
    user[picked],
    end[picked],
    {field: ids[picked] for field, ids in context.items()},
    of_row,
    None if time is None else time[picked],
  )


def of_rows(
  found: Moments, targets: Mapping[str, np.ndarray]
) -> tuple[Asked, np.ndarray]:
  """Returns the question in which each row has one target.

  Args:
    found: the moments of the rows.
    targets: field -> int32 [n], ids of the targets.

  Returns:
    What is asked; int64 [n], the row of each target.
  """
  order = np.argsort(found.of_row, kind='stable')
  count = np.bincount(found.of_row, minlength=len(found.user))
  first = np.append(0, np.cumsum(count))
  sorted_ids = {field: ids[order] for field, ids in targets.items()}
  asked = Asked(
    found.user, found.end, found.context, first, sorted_ids, found.time
  )
  return asked, order


def of_all(found: Moments, candidates: Mapping[str, np.ndarray]) -> Asked:
  """Returns the question in which all candidates are targets of each moment.

  Args:
    found: the moments of which each is asked.
    candidates: field -> int32 [c], ids of the candidates, the same for all
      moments.
  """
  moments = len(found.user)
  size = len(candidates['item'])
  first = np.arange(moments + 1, dtype=np.int64) * size
  targets = {field: np.tile(ids, moments) for field, ids in candidates.items()}
  return Asked(found.user, found.end, found.context, first, targets, found.time)
