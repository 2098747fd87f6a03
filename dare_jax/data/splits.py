"""Which moments train, validate and test: the three split protocols.

A moment is a point in a user's time at which targets are scored. It sees the
user's behaviors before `end`; its target is a later behavior or, where a log
has labels, a group of logged impressions.

`leave_last` and `leave_last_session` train on other users' future relative to
a user's test moment. `by_time` does not: no history, target or negative that
trains is from `val_from` on, and none that validates from `test_from` on.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np

from dare_jax import errors
from dare_jax.data import options
from dare_jax.data import sessions as sessions_lib
from dare_jax.data import split_advice
from dare_jax.data import split_times
from dare_jax.store import history_store

Store = history_store.HistoryStore
NAMES = ('train', 'val', 'test')


@dataclasses.dataclass(frozen=True)
class Moments:
  """Arrays of equal length, one entry a moment.

  Attributes:
    user: int32, row of the user in the store.
    end: int64, behaviors at rows below it (of this user) are visible.
    target: int64, row of the positive behavior, or of the first impression.
    count: int32, number of logged impressions; 1 for a behavior.
  """

  user: np.ndarray
  end: np.ndarray
  target: np.ndarray
  count: np.ndarray

  def __len__(self) -> int:
    return len(self.user)

  def take(self, rows: np.ndarray) -> Moments:
    return Moments(*(getattr(self, f.name)[rows] for f in _FIELDS))


_FIELDS = dataclasses.fields(Moments)
Splits = dict[str, Moments]


def make_splits(store: Store, data: options.SplitOptions) -> Splits:
  """Returns the moments of 'train', 'val' and 'test'.

  Args:
    store: the history store.
    data: the protocol and its limits.

  Raises:
    UsageError: unknown protocol, missing dates, or a split without moments.
  """
  protocol = PROTOCOLS.get(data.split)
  if protocol is None:
    raise errors.UsageError(
      f'data.split={data.split!r}: expected one of {", ".join(PROTOCOLS)}.'
    )
  if not len(store.behaviors):
    raise errors.UsageError(
      f'history store {store.path} holds no behaviors: no row of the log has'
      ' label 1; check data.columns.label, or take all rows as behaviors, with'
      ' --config.data.columns.label=None.'
    )
  splits = protocol(store, data)
  empty = [name for name, moments in splits.items() if not len(moments)]
  if empty:
    offer = split_advice.offer(
      store, data, lambda changed: PROTOCOLS[changed.split](store, changed)
    )
    raise errors.UsageError(
      f'data.split={data.split} leaves no moment for'
      f' {_why_empty(store, data, empty)}{offer}'
    )
  return splits


def _why_empty(
  store: Store,
  data: options.SplitOptions,
  empty: list[str],
) -> str:
  """Says for which part events give no moments, and what they lack."""
  if data.split == 'by_time' and (reason := _lacks_dates(store, data, empty)):
    return reason
  lengths = np.diff(store.behaviors.offsets)
  limits = f'data.min_events={data.min_events} behaviors'
  need, more = data.min_events, f' and data.min_history={data.min_history}'
  if data.split == 'leave_last':
    need, more = _events_of_positions(data), ''
    if need > data.min_events:
      positions = tuple(data.train_positions)
      limits = f'{need} behaviors, which data.train_positions={positions} needs'
  text = (
    f'{", ".join(empty)}: {int((lengths >= need).sum())} of {store.num_users}'
    f' users have {limits} (the longest history has'
    f' {int(lengths.max(initial=0))}){more}; lower'
    f' {"these" if more else "that"}, or check the log.'
  )
  distinct = sessions_lib.times_a_user(store.behaviors)
  if split_advice.has_few_times(distinct, lengths):
    text += (
      f' Half of the users have at most {int(np.median(distinct))} distinct'
      ' times: what happens at one time is one session.'
    )
  return text


def _lacks_dates(
  store: Store,
  data: options.SplitOptions,
  empty: list[str],
) -> str | None:
  """Says which part that is empty has no events at all, if one has none."""
  time = (store.impressions or store.behaviors).columns['timestamp']
  dates = split_times.of_store(store, data)
  parts = {
    'train': (dates.train_from, dates.val_from),
    'val': (dates.val_from, dates.test_from),
    'test': (dates.test_from, None),
  }
  for name in empty:
    first, stop = parts[name]
    inside = np.ones(len(time), bool)
    if first is not None:
      inside &= time >= first
    if stop is not None:
      inside &= time < stop
    if not inside.any():
      shown = lambda time: split_times.shown(store, int(time))
      begin = '' if first is None else f' from {shown(first)}'
      end = '' if stop is None else f' to before {shown(stop)}'
      return (
        f'{name}: the log has no events{begin}{end}; its times are from'
        f' {shown(time.min())} to {shown(time.max())}. Set data.train_from,'
        ' data.val_from and data.test_from within them.'
      )
  return None


def known_before(
  store: Store, data: options.SplitOptions, split: str
) -> int | None:
  """Returns the time from which on a split knows nothing; None: it knows all.

  Args:
    store: the history store.
    data: how moments are split.
    split: 'train', 'val' or 'test'.
  """
  if data.split != 'by_time':
    return None
  dates = split_times.of_store(store, data)
  return {'train': dates.val_from, 'val': dates.test_from, 'test': None}[split]


def _leave_last(store: Store, data: options.SplitOptions) -> Splits:
  """The published protocol: fixed positions counted from a user's end."""
  if store.impressions is not None:
    raise errors.UsageError(
      'data.split=leave_last takes targets from behaviors, but this log has'
      ' labelled impressions; use leave_last_session or by_time.'
    )
  offsets = store.behaviors.offsets
  lengths = np.diff(offsets)
  positions = tuple(data.train_positions)
  is_range = len(positions) == 3 and all(isinstance(p, int) for p in positions)
  first, last, step = positions if is_range else (0, 0, 0)
  if not (3 <= first <= last and step >= 1):
    raise errors.UsageError(
      f'data.train_positions={positions}: expected (first, last, step) with'
      ' 3 <= first <= last and step >= 1; positions 1 and 2 from the end test'
      ' and validate.'
    )
  users = np.flatnonzero(lengths >= _events_of_positions(data))

  def at(positions: np.ndarray) -> Moments:
    user = np.repeat(users, len(positions))
    target = offsets[user + 1] - np.tile(positions, len(users))
    return _moments(user, target, target)

  return {
    'train': at(np.arange(first, last + 1, step)),
    'val': at(np.array([2])),
    'test': at(np.array([1])),
  }


def _events_of_positions(data: options.SplitOptions) -> int:
  """Returns how many behaviors a user must have for `leave_last`."""
  return max(data.min_events, 3, data.train_positions[1] + 1)


def _leave_last_session(store: Store, data: options.SplitOptions) -> Splits:
  """Last session tests, the one before validates, earlier ones train."""
  sessions, moments = _session_moments(store, data)
  last = np.full(store.num_users, -1, np.int64)
  last[sessions.user] = np.arange(len(sessions.user))  # The last one stays.
  back = last[moments.user] - sessions.of_moment
  splits = {
    'train': moments.take(np.flatnonzero(back >= 2)),
    'val': moments.take(np.flatnonzero(back == 1)),
    'test': moments.take(np.flatnonzero(back == 0)),
  }
  return splits | {'train': _cap(splits['train'], data.max_train_moments)}


def _by_time(store: Store, data: options.SplitOptions) -> Splits:
  """Before a date trains, from it validates, from a later one tests.

  With `train_from`, older moments do not train; histories still reach back.
  """
  dates = split_times.of_store(store, data)
  if dates.val_from is None or dates.test_from is None:
    raise errors.UsageError(
      'data.split=by_time needs data.val_from and data.test_from: dates, such'
      ' as 2024-05-01, or times in the unit of the log.'
    )
  if dates.val_from >= dates.test_from:
    raise errors.UsageError(
      f'data.val_from={data.val_from} must be before'
      f' data.test_from={data.test_from}.'
    )
  if dates.train_from is not None and dates.train_from >= dates.val_from:
    raise errors.UsageError(
      f'data.train_from={data.train_from} must be before'
      f' data.val_from={data.val_from}.'
    )
  sessions, moments = _session_moments(store, data)
  time = sessions.time[sessions.of_moment]
  is_early = time < dates.val_from
  if dates.train_from is not None:
    is_early &= time >= dates.train_from
  train = np.flatnonzero(is_early)
  val = np.flatnonzero((time >= dates.val_from) & (time < dates.test_from))
  return {
    'train': _cap(moments.take(train), data.max_train_moments),
    'val': moments.take(val),
    'test': moments.take(np.flatnonzero(time >= dates.test_from)),
  }


PROTOCOLS: dict[str, Callable[..., Splits]] = {
  'leave_last': _leave_last,
  'leave_last_session': _leave_last_session,
  'by_time': _by_time,
}


@dataclasses.dataclass(frozen=True)
class _Sessions:
  """Sessions (a user's run of equal time stamps) and who belongs to them."""

  user: np.ndarray
  time: np.ndarray
  of_moment: np.ndarray


def _session_moments(
  store: Store, data: options.SplitOptions
) -> tuple[_Sessions, Moments]:
  """All moments with enough history strictly before their session's time.

  Raises:
    UsageError: the store keeps a file order that is not in time order, in
      which "before" would let the history see the future.
  """
  for table in (store.behaviors, store.impressions):
    if table is not None and not sessions_lib.are_in_time_order(table):
      raise errors.UsageError(
        f"data.split={data.split} needs each user's events in time order,"
        ' but this store keeps another file order; prepare it with'
        ' data.sort_by_time=True, or use data.split=leave_last.'
      )
  if store.impressions is not None:
    return _impression_moments(store, data)
  table = store.behaviors
  user, start, session = sessions_lib.of_table(table)
  row = np.flatnonzero(_eligible(store, data, user, start)[session])
  session = session[row]
  moments = _moments(user[session], start[session], row)
  time = np.asarray(table.columns['timestamp'][start])
  return _Sessions(user, time, session), moments


def _impression_moments(
  store: Store, data: options.SplitOptions
) -> tuple[_Sessions, Moments]:
  """One moment for up to 1 + num_negatives impressions of a session."""
  table = store.impressions
  assert table is not None
  user, start, _ = sessions_lib.of_table(table)
  stop = np.append(start[1:], len(table))
  time = np.asarray(table.columns['timestamp'][start])
  end = sessions_lib.first_rows_from(store.behaviors, user, time)
  width = 1 + data.num_negatives
  groups = -(-(stop - start) // width) * _eligible(store, data, user, end)
  session = np.repeat(np.arange(len(start)), groups)
  first = np.repeat(np.cumsum(groups) - groups, groups)
  target = start[session] + (np.arange(len(session)) - first) * width
  count = np.minimum(stop[session] - target, width)
  moments = _moments(user[session], end[session], target, count)
  return _Sessions(user, time, session), moments


def _eligible(
  store: Store, data: options.SplitOptions, user: np.ndarray, end: np.ndarray
) -> np.ndarray:
  """Whether a moment of `user` that sees rows below `end` sees enough."""
  offsets = store.behaviors.offsets
  enough_events = np.diff(offsets) >= data.min_events
  enough_history = end - offsets[user] >= data.min_history
  return enough_events[user] & enough_history


def _cap(moments: Moments, limit: int | None) -> Moments:
  """Keeps each user's latest `limit` moments."""
  if limit is None or not len(moments):
    return moments
  counts = np.bincount(moments.user)
  stop = np.cumsum(counts)
  from_end = stop[moments.user] - np.arange(len(moments))
  return moments.take(np.flatnonzero(from_end <= limit))


def _moments(
  user: np.ndarray,
  end: np.ndarray,
  target: np.ndarray,
  count: np.ndarray | None = None,
) -> Moments:
  if count is None:
    count = np.ones(len(user), np.int32)
  return Moments(
    user.astype(np.int32),
    end.astype(np.int64, copy=False),
    target.astype(np.int64, copy=False),
    count.astype(np.int32, copy=False),
  )
