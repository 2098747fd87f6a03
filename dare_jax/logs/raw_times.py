"""The times of a raw log: dates, whole numbers, and numbers with fractions.

A frame holds them as they are: `Int64`, `Float64`, `Decimal`, or `Datetime` of
UTC. `Clock` makes one whole number of each, in one unit for the whole log, the
coarsest that loses nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.logs import iso_dates
from dare_jax.logs import time_units

_DIGITS = 9  # after the point, of numbers with fractions
_DECIMAL = pl.Decimal(38, _DIGITS)
_LIMIT = 2**63 - 1
# Ways to write all dates of a log, which are read faster than any mixture.
_PLAIN_DATES = {
  '%Y-%m-%d': r'\d{4}-\d\d-\d\d',
  '%Y-%m-%d %H:%M:%S': r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d',
  '%Y-%m-%dT%H:%M:%S': r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d',
  '%Y-%m-%d %H:%M:%S%.f': r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?',
  '%Y-%m-%dT%H:%M:%S%.f': r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?',
}
_YEAR = r'^(?:1[7-9]|2[01])\d\d-'
_LIKE_DATE = r'^\d{4}[-/]\d'
_LIKE_NUMBER = r'^[-+]?[.\d]+(?:[eE][-+]?\d+)?$'
_WHOLE = r'^[-+]?\d+(?:\.0*)?$'


class Notation:
  """How the times of a log in text are written; its first rows decide.

  Rows written otherwise are malformed, in all parts of the log.
  """

  def __init__(self) -> None:
    self.is_settled = False
    self._are_dates = False
    self._have_fractions = False
    self._plain: str | None = None

  def settle(self, text: pl.Series) -> None:
    """Takes the notation from the first texts of the log that look like times.

    Args:
      text: series of texts that `is_like_time` accepts, without spaces around
        them.
    """
    dates = text.filter(text.str.contains(_LIKE_DATE))
    numbers = text.filter(text.str.contains(_LIKE_NUMBER))
    self.is_settled = len(dates) + len(numbers) > 0
    self._are_dates = len(dates) > len(numbers)
    self._have_fractions = not numbers.str.contains(_WHOLE).all()
    for form, pattern in _PLAIN_DATES.items():
      if dates.str.contains(f'^{pattern}$').all():
        self._plain = form
        break

  @property
  def expected(self) -> str:
    """What a time must be, in words."""
    if self._are_dates:
      return f'{iso_dates.EXPECTED}, as in the first rows'
    if self.is_settled:
      return 'a number, as in the first rows, within 64 bit'
    return f'a number, or {iso_dates.EXPECTED}'

  def read(self, text: pl.Expr, thorough: bool) -> pl.Expr:
    """Returns the times of texts, null where they are none.

    Args:
      text: a column of texts without spaces around them.
      thorough: whether to read all that a time may be, where the way that
        most rows are written is faster.
    """
    if self._are_dates:
      if thorough or self._plain is None:
        return iso_dates.of_column(text)
      plain = text.str.to_datetime(self._plain, time_unit='ns', strict=False)
      return pl.when(text.str.contains(_YEAR)).then(plain)
    if thorough or self._have_fractions:
      number = text.cast(_DECIMAL, strict=False)
      return pl.when(number.is_between(-_LIMIT, _LIMIT)).then(number)
    return text.cast(pl.Int64, strict=False)


def is_like_time(text: pl.Expr) -> pl.Expr:
  """Returns which texts, without spaces around, look like dates or numbers."""
  return text.str.contains(_LIKE_DATE) | text.str.contains(_LIKE_NUMBER)


def typed(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
  """Returns times of a typed column (dates have no zone), null if none."""
  if dtype == pl.Date:
    return value.cast(pl.Datetime('ms'))
  if dtype.is_temporal():
    return value
  if dtype.is_float():
    value = value.cast(pl.Float64)
    return pl.when(value.abs() < float(_LIMIT)).then(value)
  if dtype.is_decimal():
    value = value.cast(_DECIMAL, strict=False)
    return pl.when(value.is_between(-_LIMIT, _LIMIT)).then(value)
  return value.cast(pl.Int64, strict=False)


@dataclasses.dataclass(frozen=True)
class Times:
  """The times of all rows.

  Attributes:
    values: int64 [rows], the time of each row.
    unit: the unit of the times, a name in `time_units.PER_SECOND`, where the
      log holds dates; None where it holds numbers.
    scale: the factor by which fractional numbers were multiplied to become
      whole.
  """

  values: np.ndarray
  unit: str | None = None
  scale: int = 1


class Clock:
  """Takes in the times of a log block by block."""

  def __init__(self) -> None:
    self._parts: list[tuple[np.ndarray, int]] = []  # ticks, in one of the unit
    self._are_dates: bool | None = None

  def add(self, times: pl.Series) -> None:
    """Takes in a block, of any type that a frame holds times as.

    Raises:
      UsageError: dates where the log had numbers before, or the reverse.
    """
    if not len(times):
      return
    are_dates = times.dtype.is_temporal()
    if self._are_dates not in (None, are_dates):
      raise errors.UsageError(
        'the times of the log are dates in some parts and numbers in others;'
        ' expected one kind in all.'
      )
    self._are_dates = are_dates
    if are_dates:
      assert isinstance(times.dtype, pl.Datetime)
      per_second = {'ms': 10**3, 'us': 10**6, 'ns': 10**9}
      ticks = times.to_physical().to_numpy()
      self._parts.append(_coarsest(ticks, per_second[times.dtype.time_unit]))
    elif times.dtype.is_decimal():
      self._parts.append(_whole(times))
    else:  # What floats need is known when all are there.
      self._parts.append((times.to_numpy(), 1))

  def finish(self) -> Times:
    """Returns all times in one unit.

    Raises:
      UsageError: 64 bit do not hold them in the unit that they need.
    """
    floats = [part for part, _ in self._parts if part.dtype.kind == 'f']
    float_scale = _float_scale(floats)
    scale = max([float_scale, *(scale for _, scale in self._parts)])
    values = []
    while self._parts:
      part, own = self._parts.pop(0)
      if part.dtype.kind == 'f':
        part, own = _ticks(part, float_scale), float_scale
      values.append(_rescaled(part, scale // own))
    joined = np.concatenate(values) if values else np.zeros(0, np.int64)
    if not self._are_dates:
      return Times(joined, None, scale)
    return Times(joined, time_units.divided('seconds', scale))


def _coarsest(ticks: np.ndarray, scale: int) -> tuple[np.ndarray, int]:
  """Returns ticks in the coarsest of the units that loses nothing."""
  factor = scale
  while factor > 1 and (ticks % factor).any():
    factor //= 1_000
  return (ticks // factor if factor > 1 else ticks), scale // factor


def _whole(times: pl.Series) -> tuple[np.ndarray, int]:
  """As `_coarsest`, of decimals."""
  ticks = times.cast(_DECIMAL).to_physical().alias('ticks').to_frame()
  factor = 10**_DIGITS
  while factor > 1:
    rest = pl.col('ticks') % pl.lit(factor, pl.Int128)
    if ticks.select((rest == 0).all()).item():
      break
    factor //= 1_000
  whole = ticks.select(
    (pl.col('ticks') // pl.lit(factor, pl.Int128)).cast(pl.Int64, strict=False)
  )['ticks']
  scale = 10**_DIGITS // factor
  if whole.null_count():
    raise _too_fine(scale)
  return whole.to_numpy(), scale


def _float_scale(parts: list[np.ndarray]) -> int:
  """Returns into how many parts of one floats are to be cut.

  A float stands for the decimal of 0, 3 or 6 digits after the point that is
  read as that same float, if all have one; else nine digits are kept.
  """
  for scale in (1, 10**3, 10**6):
    if all(_are_decimals(part, scale) for part in parts):
      return scale
  return 10**_DIGITS


def _ticks(part: np.ndarray, scale: int) -> np.ndarray:
  if scale < 10**_DIGITS:
    return _scaled(part, scale).astype(np.int64)
  whole = np.floor(part)
  rest = np.rint((part - whole) * scale).astype(np.int64)
  return _rescaled(whole.astype(np.int64), scale) + rest


def _scaled(part: np.ndarray, scale: int) -> np.ndarray:
  return part if scale == 1 else np.rint(part * scale)


def _are_decimals(part: np.ndarray, scale: int) -> bool:
  if scale == 1:
    return bool((part == np.floor(part)).all())
  ticks = _scaled(part, scale)
  # Up to 2^53 the product and the quotient are each rounded once.
  return bool((np.abs(ticks) < 2.0**53).all() and (ticks / scale == part).all())


def _rescaled(ticks: np.ndarray, factor: int) -> np.ndarray:
  if factor == 1:
    return ticks
  largest = max(int(ticks.max(initial=0)), -int(ticks.min(initial=0)))
  if largest > (_LIMIT - factor) // factor:
    raise _too_fine(factor)
  return ticks * factor


def _too_fine(factor: int) -> errors.UsageError:
  return errors.UsageError(
    f'the times of the log need {factor:,} parts of one of their units, and'
    ' are then too large for 64 bit; round the fractions, or give times since'
    ' a later moment.'
  )
