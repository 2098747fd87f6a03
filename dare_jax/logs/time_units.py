"""Units of time stamps, and dates in the unit of a log.

Logs name no unit. Where their times are dates it is known; of plain numbers
it is told by their size, where that is of our days.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  import polars as pl

PER_SECOND = {
  'seconds': 1,
  'milliseconds': 10**3,
  'microseconds': 10**6,
  'nanoseconds': 10**9,
}
NANOSECONDS = PER_SECOND['nanoseconds']
# The years 1973 to 2100 in seconds; no two units overlap there.
_MODERN = (100_000_000, 4_102_444_800)
# Years that 64 bit hold in nanoseconds, whatever the zone.
DATE = (
  r'(?:1[7-9]|2[01])\d\d[-/]\d{1,2}[-/]\d{1,2}'
  r'(?:[Tt ]\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?'
  r' ?(?:(?i:Z|UTC|GMT)|[+-]\d\d(?::?\d\d)?)?)?'
)
EXPECTED_DATE = (
  'a date or time in ISO 8601, of 1700 to 2199, such as 2024-05-01 or'
  ' 2024-05-01T12:30:00.5+02:00'
)
_PARTS = (
  r'^(\d{4})[-/](\d+)[-/](\d+)'
  r'(?:[Tt ](\d+:\d+)(?::(\d+)(?:[.,](\d+))?)? ?(.+)?)?$'
)


def from_text(text: pl.Expr) -> pl.Expr:
  """Returns texts in ISO 8601 as `Datetime('ns')` of UTC, others as null.

  Slashes between year, month and day are read as well. A time without a zone
  is of UTC, a date its first moment; 24:00 is the first of the next day.
  """
  import polars as pl  # What serves a bundle does without.

  is_date = text.str.contains(f'^(?:{DATE})$')
  parts = pl.when(is_date).then(text).str.extract_groups(_PARTS).struct
  year, month, day, clock, second, fraction, zone = (
    parts.field(str(number)) for number in range(1, 8)
  )
  zone = zone.str.replace('^(?i:Z|UTC|GMT)$', '+00:00').fill_null('+00:00')
  is_end = (clock == '24:00').fill_null(False)
  is_end &= pl.concat_str(
    second.fill_null('0'), fraction.fill_null('0')
  ).str.contains('^0+$')
  clock = pl.when(is_end).then(pl.lit('00:00')).otherwise(clock)
  # A missing year makes the whole missing; a missing rest is zero.
  full = pl.concat_str(
    year,
    pl.lit('-'),
    month,
    pl.lit('-'),
    day,
    pl.lit(' '),
    clock.fill_null('00:00'),
    pl.lit(':'),
    second.fill_null('00'),
    pl.lit('.'),
    fraction.fill_null('0'),
    zone,
  )
  moment = full.str.to_datetime(
    '%Y-%m-%d %H:%M:%S%.f%#z', time_unit='ns', time_zone='UTC', strict=False
  ).dt.replace_time_zone(None)
  day = pl.duration(days=1, time_unit='ns')
  return pl.when(is_end).then(moment + day).otherwise(moment)


def nanoseconds(text: str) -> int | None:
  """Returns a date's or time's nanoseconds since 1970; None if it is none.

  It reads what `from_text` does.

  >>> nanoseconds('1970-01-01T01:00:00.5+01:00'), nanoseconds('yesterday')
  (500000000, None)

  Args:
    text: a date, or a date and a time of the day, in ISO 8601.
  """
  text = text.strip()
  parts = re.match(_PARTS, text, re.ASCII)
  if parts is None or not re.fullmatch(DATE, text, re.ASCII):
    return None
  year, month, day, clock, second, fraction, zone = parts.groups()
  rest = int((fraction or '0')[:9].ljust(9, '0'))
  last = int(second or 0)
  days = clock == '24:00' and not last and not rest
  hour, minute = (0, 0) if days else map(int, (clock or '0:0').split(':'))
  is_leap = last == 60  # The first of the next minute.
  try:
    moment = datetime.datetime(
      int(year), int(month), int(day), hour, minute, last - is_leap
    )
  except ValueError:
    return None
  shift = 0
  if zone and zone[0] in '+-':
    hours, minutes = int(zone[1:3]), int(zone[3:].strip(':') or 0)
    if hours > 23 or minutes > 59:
      return None
    shift = (hours * 60 + minutes) * (-1 if zone[0] == '-' else 1)
  since = moment - datetime.datetime(1970, 1, 1)
  seconds = (since.days + days) * 86_400 + since.seconds + is_leap - shift * 60
  return seconds * NANOSECONDS + rest


def of_number(value: float) -> str | None:
  """Returns the unit in which a number is a time of our days, if one is."""
  for unit, scale in PER_SECOND.items():
    if _MODERN[0] * scale <= value < _MODERN[1] * scale:
      return unit
  return None


def counts(times: np.ndarray) -> dict[str, int]:
  """Returns how many times are of our days in each unit, none left out."""
  if not len(times):
    return {}
  first, last = int(times.min()), int(times.max())
  found: dict[str, int] = {}
  for unit, scale in PER_SECOND.items():
    low, high = (scale * end for end in _MODERN)
    if low <= first and last < high:
      return {unit: len(times)}
    if last >= low and first < high:
      count = int(((times >= low) & (times < high)).sum())
      found |= {unit: count} if count else {}
  return found


def of_times(times: np.ndarray, scale: int = 1) -> str | None:
  """Returns the unit of most times, where no other unit is among them.

  Args:
    times: int [n], time stamps.
    scale: the factor by which the log's own numbers were multiplied; the size
      of those numbers tells the unit.
  """
  found = counts(times // scale if scale > 1 else times)
  if len(found) == 1:
    unit, count = next(iter(found.items()))
    if 2 * count > len(times):
      return divided(unit, scale)
  return None


def divided(unit: str, parts: int) -> str | None:
  """Returns the unit of which there are `parts` in another, if it has a name.

  Args:
    unit: name of the larger unit, such as `seconds`.
    parts: a power of 1,000.
  """
  names = {factor: name for name, factor in PER_SECOND.items()}
  return names.get(PER_SECOND[unit] * parts)


def date(time: int, unit: str) -> str | None:
  """Returns a time as a date of UTC; None beyond the years 1 to 9999."""
  seconds, rest = divmod(time, PER_SECOND[unit])
  try:
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
  except OverflowError:
    return None
  digits = len(str(PER_SECOND[unit])) - 1
  fraction = f'{rest:0{digits}}'.rstrip('0') if digits else ''
  return re.sub(r'\.$', '', f'{moment}.{fraction}')
