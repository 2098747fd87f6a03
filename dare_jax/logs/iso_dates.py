"""Dates and times of the day, in ISO 8601: read as texts, and written.

Read twice: a column of a log by expressions of Polars, one value by Python
alone, for what serves a bundle has no Polars. Both read the same texts alike.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

from dare_jax.logs import time_units

if TYPE_CHECKING:
  import polars as pl

# Years that 64 bit hold in nanoseconds, whatever the zone.
_DATE = (
  r'(?:1[7-9]|2[01])\d\d[-/]\d{1,2}[-/]\d{1,2}'
  r'(?:[Tt ]\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?'
  r' ?(?:(?i:Z|UTC|GMT)|[+-]\d\d(?::?\d\d)?)?)?'
)
EXPECTED = (
  'a date or time in ISO 8601, of 1700 to 2199, such as 2024-05-01 or'
  ' 2024-05-01T12:30:00.5+02:00'
)
_PARTS = (
  r'^(\d{4})[-/](\d+)[-/](\d+)'
  r'(?:[Tt ](\d+:\d+)(?::(\d+)(?:[.,](\d+))?)? ?(.+)?)?$'
)


def of_column(text: pl.Expr) -> pl.Expr:
  """Returns texts in ISO 8601 as `Datetime('ns')` of UTC, others as null.

  Slashes between year, month and day are read as well. A time without a zone
  is of UTC, a date its first moment; 24:00 is the first of the next day.
  """
  import polars as pl  # What serves a bundle does without.

  is_date = text.str.contains(f'^(?:{_DATE})$')
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


def nanoseconds_of(text: str) -> int | None:
  """Returns a date's or time's nanoseconds since 1970; None if it is none.

  It reads what `of_column` does.

  >>> nanoseconds_of('1970-01-01T01:00:00.5+01:00'), nanoseconds_of('yesterday')
  (500000000, None)

  Args:
    text: a date, or a date and a time of the day, in ISO 8601.
  """
  text = text.strip()
  parts = re.match(_PARTS, text, re.ASCII)
  if parts is None or not re.fullmatch(_DATE, text, re.ASCII):
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
  return seconds * time_units.NANOSECONDS + rest


def shown(time: int, unit: str) -> str | None:
  """Returns a time as a date of UTC; None beyond the years 1 to 9999."""
  seconds, rest = divmod(time, time_units.PER_SECOND[unit])
  try:
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
  except OverflowError:
    return None
  digits = len(str(time_units.PER_SECOND[unit])) - 1
  fraction = f'{rest:0{digits}}'.rstrip('0') if digits else ''
  return re.sub(r'\.$', '', f'{moment}.{fraction}')
