"""The times of an input as those of a log."""

from __future__ import annotations

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.data import split_times
from dare_jax.logs import iso_dates
from dare_jax.logs import raw_log
from dare_jax.logs import raw_times
from dare_jax.logs import raw_values
from dare_jax.logs import time_units
from dare_jax.prediction import raw_ids
from dare_jax.store import history_store

_PER_SECOND = {'ms': 10**3, 'us': 10**6, 'ns': 10**9}
_LARGEST = float(2**62)


class Times:
  """Reads moments in the unit of a log's times.

  A moment between two ticks of the log becomes the later one, so that what is
  before it stays before it.
  """

  def __init__(self, store: history_store.HistoryStore) -> None:
    """Makes a reader.

    Args:
      store: the store of the log.

    Raises:
      UsageError: the log is not in the order of its times.
    """
    self._store = store
    table = store.behaviors
    times = table.columns['timestamp']
    late = times[1:] < times[:-1]
    borders = table.offsets[(0 < table.offsets) & (table.offsets < len(times))]
    late[borders - 1] = False  # The step from one user to the next.
    if late.any():
      raise errors.UsageError(
        f'{store.path}: its behaviors are not in the order of their times'
        ' (data.sort_by_time=False), so those before a time are not known;'
        ' leave the time out, with --columns=time= .'
      )
    self._unit, _ = split_times.unit_of(store)
    log = store.manifest['provenance'].get('log', {})
    self._are_dates = log.get('time_unit') is not None
    self._scale = split_times.scale_of(store)
    self._notation = raw_times.Notation()
    self._is_checked = False

  def __call__(self, column: raw_ids.Column) -> np.ndarray:
    """Returns the first tick that is not before each moment: int64 [n].

    Raises:
      UsageError: a value that is no time, or times that are not as the log's.
    """
    raw = column.values
    if raw.dtype == pl.String:
      raw = raw.str.strip_chars()
      if not self._notation.is_settled:
        likely = raw.to_frame().filter(raw_times.is_like_time(pl.col(raw.name)))
        self._notation.settle(likely.to_series())
    if raw.dtype.is_nested() or raw.dtype in (pl.Boolean, pl.Binary, pl.Time):
      raise errors.UsageError(
        f'{column.path}: column {column.name!r} is of type {raw.dtype};'
        ' expected times as the log has them.'
      )
    kind = raw_log.Column(raw.name, 'time', notation=self._notation)
    for thorough in (False, True):
      value, _ = raw_values.cast(kind, raw.dtype, thorough)
      times = raw.to_frame().select(value).to_series()
      if not times.null_count():
        break
    if times.dtype.is_float():
      times = times.fill_nan(None)
    if times.null_count():
      row = int(times.is_null().arg_max() or 0)
      is_empty = column.values[row] is None
      reason = 'the time is missing' if is_empty else 'is no time'
      raise column.refused(row, f'{reason}; expected {self._expected}')
    if times.dtype.is_temporal():
      return self._from_dates(times, column)
    return self._from_numbers(times, column)

  @property
  def _expected(self) -> str:
    if self._are_dates:
      return iso_dates.EXPECTED
    return f'a number, as in the log ({self._span})'

  @property
  def _span(self) -> str:
    times = self._store.behaviors.columns['timestamp']
    if not len(times):
      return 'which is empty'
    shown = (
      split_times.shown(self._store, int(time))
      for time in (times.min(), times.max())
    )
    return 'from {} to {}'.format(*shown)

  def _from_dates(self, times: pl.Series, column: raw_ids.Column) -> np.ndarray:
    if self._unit is None:
      raise column.refused(
        0,
        'is a date, but the times of the log are numbers of an unknown unit,'
        f' {self._span}; expected a number among them',
      )
    assert isinstance(times.dtype, pl.Datetime)
    ticks = times.to_physical().to_numpy().astype(np.int64)
    own = _PER_SECOND[times.dtype.time_unit]
    of_log = time_units.PER_SECOND[self._unit]
    if of_log >= own:
      return ticks * (of_log // own)
    return -(-ticks // (own // of_log))

  def _from_numbers(
    self, times: pl.Series, column: raw_ids.Column
  ) -> np.ndarray:
    if self._are_dates:
      raise column.refused(
        0, f'is a number, but the times of the log are dates, {self._span}'
      )
    if not self._is_checked and len(times):
      self._check_unit(times, column)
    if times.dtype.is_integer() and self._scale == 1:
      return times.to_numpy().astype(np.int64)
    if times.dtype.is_float():
      ticks = np.ceil(times.to_numpy() * self._scale)
      return np.clip(ticks, -_LARGEST, _LARGEST).astype(np.int64)
    exact = times.cast(pl.Decimal(38, 9)) * self._scale
    return exact.ceil().cast(pl.Int64).to_numpy()

  def _check_unit(self, times: pl.Series, column: raw_ids.Column) -> None:
    """Refuses milliseconds where the log has seconds, and the like."""
    self._is_checked = True
    if self._unit is None:
      return
    sample = times.cast(pl.Float64).to_numpy()
    other = time_units.of_times(np.floor(sample))
    if other and time_units.divided(other, self._scale) != self._unit:
      raise column.refused(
        0,
        f'looks like {other} since 1970, but the times of the log are not in'
        f' {other}: {self._span}; give times in the unit of the log',
      )
