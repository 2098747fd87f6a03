"""Times of events as models read them: whole seconds after an origin, int32."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.data import split_times
from dare_jax.data import splits
from dare_jax.logs import iso_dates
from dare_jax.logs import time_units
from dare_jax.store import history_store

_DAY = 86_400
_WEEK = 7 * _DAY
_MONDAY = 4 * _DAY  # The first one after the beginning of 1970.
_CHUNK = 1 << 20


class Clock:
  """Reads the times of a store in seconds since 1970."""

  def __init__(self, store: history_store.HistoryStore) -> None:
    """Makes a clock.

    Args:
      store: the history store.

    Raises:
      UsageError: the unit of its times is not known.
    """
    unit, _ = split_times.unit_of(store)
    if unit is None:
      raise errors.UsageError(
        'model.real_time needs to know what the times of the log count, and'
        f' those of this one ({split_times.span(store)}) do not tell: expected'
        ' dates in ISO 8601, or seconds, milliseconds, microseconds or'
        ' nanoseconds since 1970; give such times, or leave out'
        ' model.real_time.'
      )
    self.ticks = time_units.PER_SECOND[unit]
    self._store, self._unit = store, unit
    self._behaviors = store.behaviors.columns['timestamp']
    targets = store.impressions or store.behaviors
    self._targets = targets.columns['timestamp']

  def of_behaviors(self, row: np.ndarray) -> np.ndarray:
    """Returns the times of behaviors, int64, by their rows in the store."""
    return self._behaviors[row].astype(np.int64) // self.ticks

  def of_moments(self, moments: splits.Moments) -> np.ndarray:
    """Returns the times of moments, those of their targets, int64 [n]."""
    return self._targets[moments.target].astype(np.int64) // self.ticks

  def of_raw(self, name: str, raw: Any) -> np.ndarray:
    """Returns raw times, as the log has them, in seconds since 1970: int64.

    Args:
      name: what the times are called in messages.
      raw: a sequence of dates (text in ISO 8601, or `datetime`), or, of a log
        that has numbers, of numbers in its unit.

    Raises:
      UsageError: something else.
    """
    times = pl.Series(name, raw, strict=False)
    if not len(times):
      return np.zeros(0, np.int64)
    if times.dtype == pl.String:
      dates = iso_dates.of_column(pl.col(name).str.strip_chars())
      times = times.to_frame().select(dates).to_series()
    if times.dtype.is_temporal() and not times.null_count():
      return times.cast(pl.Datetime('us')).to_physical().to_numpy() // 10**6
    _, is_told = split_times.unit_of(self._store)
    if not times.dtype.is_numeric() or times.null_count() or is_told:
      expected = iso_dates.EXPECTED
      if not is_told:
        expected += f'; or numbers as in the log, {self._unit} since 1970'
      raise errors.UsageError(f'{name}: {raw!r:.60}: expected {expected}.')
    scale = split_times.scale_of(self._store)
    if times.dtype.is_integer():
      return times.cast(pl.Int64).to_numpy() * scale // self.ticks
    return np.floor(times.to_numpy() * scale / self.ticks).astype(np.int64)


def origin(seconds: np.ndarray) -> np.ndarray:
  """Returns the last Monday, 00:00 UTC, not after times since 1970, int64.

  >>> import numpy as np
  >>> origin(np.array([0, 4 * 86_400, 4 * 86_400 - 1])) // 86_400
  array([-3,  4, -3])
  """
  return (seconds - _MONDAY) // _WEEK * _WEEK + _MONDAY


def after(origin: np.ndarray, seconds: np.ndarray) -> np.ndarray:
  """Returns times since 1970 as seconds after an origin, int32.

  What lies more than 68 years from it is the farthest that there is.
  """
  limits = np.iinfo(np.int32)
  return np.clip(seconds - origin, limits.min, limits.max).astype(np.int32)


def check(store: history_store.HistoryStore, parts: tuple[str, ...]) -> None:
  """Checks that a store's times tell what a model is to be told of them.

  Args:
    store: the history store.
    parts: `model.real_time`.

  Raises:
    UsageError: the unit of the times is not known; or the model reads the hour,
      and all times are whole days.
  """
  if not parts:
    return
  clock = Clock(store)
  if 'hour' not in parts:
    return
  times = (store.impressions or store.behaviors).columns['timestamp']
  day = _DAY * clock.ticks
  for start in range(0, len(times), _CHUNK):
    if (times[start : start + _CHUNK].astype(np.int64) % day).any():
      return
  others = ','.join(part for part in parts if part != 'hour')
  raise errors.UsageError(
    f'model.real_time={",".join(parts)}: all times of the log are whole days,'
    ' which have no hour; expected gap or weekday alone: set'
    f' --config.model.real_time={others or "gap,weekday"}.'
  )
