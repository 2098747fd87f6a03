"""Which split gives moments, where the one that was asked for does not."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sized
import dataclasses
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.data import options
from dare_jax.data import split_times
from dare_jax.logs import iso_dates
from dare_jax.store import history_store

Store = history_store.HistoryStore
_Changes = dict[str, Any]  # field of the config's data section -> value
_SHARES = (0.8, 0.9)  # of the events come before validation and test begin
_FEW_TIMES = 10


def offer(
  store: Store,
  data: options.SplitOptions,
  make: Callable[[options.SplitOptions], Mapping[str, Sized]],
) -> str:
  """Returns the flags of a split that gives moments, counted; '' if none does.

  Args:
    store: the history store.
    data: the options that leave a split without moments.
    make: returns the moments of each split by such options.
  """
  tried = []
  for changes in _candidates(store, data):
    changed = dataclasses.replace(data, **changes)
    try:
      counts = {name: len(moments) for name, moments in make(changed).items()}
    except errors.UsageError:
      continue
    tried.append((changes, counts))
  most = max((min(counts.values()) for _, counts in tried), default=0)
  for changes, counts in tried:
    if 0 < most <= 2 * min(counts.values()):
      return _offered(changes, counts)
  return ''


def _offered(changes: _Changes, counts: Mapping[str, int]) -> str:
  flags = ' '.join(
    f'--config.data.{field}={_shown(value)}' for field, value in changes.items()
  )
  told = ', '.join(f'{count:,} {name}' for name, count in counts.items())
  order = ''
  if changes.get('split') == 'leave_last':
    order = ', in the order of the log where times are equal'
  return f' {flags} would give {told} moments{order}.'


def has_few_times(distinct: np.ndarray, lengths: np.ndarray) -> bool:
  """Returns whether most users have few times, and many events at each.

  Args:
    distinct: int [users], number of distinct times of each user.
    lengths: int [users], number of events of each user.
  """
  if not len(distinct):
    return False
  median = float(np.median(distinct))
  return median < _FEW_TIMES and 2 * median <= float(np.median(lengths))


def _candidates(store: Store, data: options.SplitOptions) -> Iterator[_Changes]:
  """Yields changes to try, those that keep most of what was asked first."""
  lengths = np.diff(store.behaviors.offsets)
  median = int(np.median(lengths[lengths > 0]))
  limits = [
    {},
    {
      'min_events': min(data.min_events, median),
      'min_history': min(data.min_history, median // 4),
    },
    {'min_events': 3, 'min_history': 1},
  ]
  others = ['leave_last', 'leave_last_session', 'by_time']
  for split in sorted(others, key=lambda split: split != data.split):
    for limit in limits:
      changes: _Changes = {} if split == data.split else {'split': split}
      if split == 'leave_last':
        changes |= _positions(data, median)
        limit = {k: v for k, v in limit.items() if k == 'min_events'}
      elif split == 'by_time':
        changes |= _dates(store, data)
      yield changes | {k: v for k, v in limit.items() if v != getattr(data, k)}


def _positions(data: options.SplitOptions, median: int) -> _Changes:
  """Returns positions that half of the users have, where they are to change."""
  first, last, step = data.train_positions
  if last < median:
    return {}
  return {'train_positions': (first, max(first, median - 1), step)}


def _dates(store: Store, data: options.SplitOptions) -> _Changes:
  """Returns dates that leave a tenth of the events to each of val and test."""
  times = (store.impressions or store.behaviors).columns['timestamp']
  val, test = np.quantile(times, _SHARES, method='higher').tolist()
  if val == test:
    later = times[times > val]
    test = int(later.min()) if len(later) else val
  found: _Changes = {'val_from': val, 'test_from': test}
  for name, time in found.items():
    found[name] = _given(store, time)
  return found if data.train_from is None else {'train_from': None} | found


def _given(store: Store, time: int) -> Any:
  """Returns a time as a config may give it, as a date if it can be one."""
  unit, _ = split_times.unit_of(store)
  date = iso_dates.shown(time, unit) if unit else None
  if date is not None:
    return date.removesuffix(' 00:00:00').replace(' ', 'T')
  scale = split_times.scale_of(store)
  return time if scale == 1 else time / scale


def _shown(value: Any) -> str:
  return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)
