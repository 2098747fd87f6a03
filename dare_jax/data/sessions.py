"""Sessions: runs of events of one user at one time."""

from __future__ import annotations

import numpy as np

from dare_jax.store import history_store


def of_table(
  table: history_store.Table,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the sessions of a table.

  Returns:
    int64 [s], the user of each session; int64 [s], its first row; and int64
    [n], the session of each row.
  """
  time = table.columns['timestamp']
  new = np.ones(len(table), bool)
  np.not_equal(time[1:], time[:-1], out=new[1:])
  new[_first_rows(table)] = True
  start = np.flatnonzero(new)
  user = np.searchsorted(table.offsets, start, side='right') - 1
  return user, start, np.cumsum(new) - 1


def times_a_user(table: history_store.Table) -> np.ndarray:
  """Returns how many distinct times each user has, int64 [users].

  In a store that keeps another order, times that come again count again.
  """
  user, _, _ = of_table(table)
  return np.bincount(user, minlength=len(table.offsets) - 1)


def _first_rows(table: history_store.Table) -> np.ndarray:
  return table.offsets[:-1][np.diff(table.offsets) > 0]


def are_in_time_order(table: history_store.Table) -> bool:
  """Returns whether the events of each user are in order of their times."""
  time = table.columns['timestamp']
  later = np.ones(len(table), bool)
  np.greater_equal(time[1:], time[:-1], out=later[1:])
  later[_first_rows(table)] = True
  return bool(later.all())


def first_rows_from(
  table: history_store.Table, user: np.ndarray, time: np.ndarray
) -> np.ndarray:
  """Returns the first event of a user at a time or later, for many pairs.

  Args:
    table: the table of events.
    user: int [n], ascending.
    time: int [n], a time for each user.

  Returns:
    int64 [n], rows of the table; the end of the user's where none is as late.
  """
  rows = np.empty(len(user), np.int64)
  bounds = np.searchsorted(user, np.arange(len(table.offsets)))
  stamps = table.columns['timestamp']
  for index in np.unique(user):
    pairs = slice(bounds[index], bounds[index + 1])
    events = table.slice(index)
    rows[pairs] = events.start + np.searchsorted(stamps[events], time[pairs])
  return rows
