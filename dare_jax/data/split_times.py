"""The dates of a split by time, in the unit of a store's times."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.data import options
from dare_jax.logs import iso_dates
from dare_jax.logs import time_units
from dare_jax.store import history_store

Store = history_store.HistoryStore
FIELDS = ('train_from', 'val_from', 'test_from')


@dataclasses.dataclass(frozen=True)
class SplitTimes:
  """From when on events train, validate and test, as the store's times are."""

  train_from: int | None
  val_from: int | None
  test_from: int | None


def check(data: options.SplitOptions) -> None:
  """Raises UsageError for a field that is no number and no date."""
  for name in FIELDS:
    value = getattr(data, name)
    if isinstance(value, str):
      is_time = iso_dates.nanoseconds_of(value) is not None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
      is_time = math.isfinite(value)
    else:
      is_time = value is None
    if not is_time:
      raise errors.UsageError(
        f'data.{name}={value!r}: expected a number in the unit of the log, or'
        f' {iso_dates.EXPECTED}.'
      )


def of_store(store: Store, data: options.SplitOptions) -> SplitTimes:
  """Returns the config's `train_from`, `val_from` and `test_from`.

  Raises:
    UsageError: neither number nor date; a date, and the unit of the log is not
      known; or a number that looks like one of another unit.
  """
  check(data)
  return SplitTimes(
    *(_time(store, name, getattr(data, name)) for name in FIELDS)
  )


def _time(store: Store, name: str, value: options.Time) -> int | None:
  if value is None:
    return None
  unit, _ = unit_of(store)
  if isinstance(value, str):
    if unit is None:
      times = _times(store)
      raise errors.UsageError(
        f'data.{name}={value}: is a date, but the times of the log, from'
        f' {times.min()} to {times.max()}, are numbers of an unknown unit;'
        ' expected a number among them.'
      )
    nanoseconds = iso_dates.nanoseconds_of(value)
    assert nanoseconds is not None  # It has been checked.
    tick = time_units.NANOSECONDS // time_units.PER_SECOND[unit]
    # The first tick that is not before the date.
    return -(-nanoseconds // tick)
  scale = scale_of(store)
  other = time_units.of_number(value)
  if unit is not None and other and time_units.divided(other, scale) != unit:
    date = (iso_dates.shown(math.floor(value), other) or '')[:10]
    of_log = next(
      whole
      for whole in time_units.PER_SECOND
      if time_units.divided(whole, scale) == unit
    )
    raise errors.UsageError(
      f'data.{name}={value}: looks like {other} since 1970, but the times of'
      f' the log are {of_log} (the last {_times(store).max() // scale}); give'
      f' it in {of_log}, or as a date: {date}.'
    )
  return math.ceil(value * scale)


def scale_of(store: Store) -> int:
  """Returns by what the log's numbers were multiplied to be whole."""
  return int(_log(store).get('time_scale', 1))


def unit_of(store: Store) -> tuple[str | None, bool]:
  """Returns the unit of a store's times, and whether the log tells it.

  Of numbers it is judged by their size; None where that does not tell.
  """
  unit = _log(store).get('time_unit')
  if unit is not None:
    return unit, True
  return time_units.of_times(_times(store), scale_of(store)), False


def shown(store: Store, time: int) -> str:
  """Returns a time, with its date where the unit is known."""
  unit, _ = unit_of(store)
  date = iso_dates.shown(time, unit) if unit else None
  return f'{time} ({date} UTC)' if date else str(time)


def span(store: Store) -> str:
  """Returns from when to when a log is, by its dates if they are known."""
  times, (unit, _) = _times(store), unit_of(store)
  ends = [int(times.min()), int(times.max())]
  dates = [iso_dates.shown(time, unit) if unit else None for time in ends]
  first, last = (
    str(time) if date is None else date[:10]
    for time, date in zip(ends, dates, strict=True)
  )
  return f'from {first} to {last}'


def _log(store: Store) -> dict[str, Any]:
  return store.manifest['provenance'].get('log', {})


def _times(store: Store) -> np.ndarray:
  return (store.impressions or store.behaviors).columns['timestamp']
