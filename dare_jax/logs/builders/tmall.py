"""Tmall: half a year of clicks of 424 thousand users of a large shop."""

from __future__ import annotations

from collections.abc import Iterator
import datetime
import pathlib

import polars as pl

from dare_jax.logs import event_log
from dare_jax.logs import raw_log
from dare_jax.logs.builders import base
from dare_jax.logs.csv import raw_csv

_CLICK = 0
_YEAR = 2014  # of the log; it names days by month and day only
# Days that 2014 had. The leading zero may be gone, where a tool read the
# stamp as a number.
_DAY_OF_YEAR = (
  '(0?[13578]|1[02])(0[1-9]|[12][0-9]|3[01])'
  '|(0?[469]|11)(0[1-9]|[12][0-9]|30)'
  '|0?2(0[1-9]|1[0-9]|2[0-8])'
)
_COLUMNS = (
  raw_log.Column('user_id'),
  raw_log.Column('item_id'),
  raw_log.Column('cat_id'),
  raw_log.Column('seller_id'),
  raw_log.Column('brand_id'),
  raw_log.Column('time_stamp', 'str', _DAY_OF_YEAR, 'a day of 2014 as mmdd'),
  raw_log.Column('action_type', pattern='[0-3]'),
)
_SELECT = {
  'user_id': 'user',
  'item_id': 'item',
  'cat_id': 'category',
  'time_stamp': 'day',
  'action_type': 'action',
}


class Tmall(base.LogBuilder):
  """Clicks of the log `user_log_format1.csv` (Alibaba Tianchi, data set 42).

  The file has a header and seven columns: user_id, item_id, cat_id, seller_id,
  brand_id, time_stamp (`mmdd`), action_type. Only clicks (action 0) are kept.
  A time stamp becomes the second, since 1970, at which its day began in UTC,
  in the year 2014; a user's rows of one day keep the file's order.
  """

  @property
  def schema(self) -> event_log.LogSchema:
    return event_log.LogSchema(sort_by_time=self.options.sort_by_time)

  def read_log(self) -> event_log.EventLog:
    """Reads the clicks of user_log_format1.csv."""
    file = raw_log.require_file(
      self.options.input, "Tmall's user_log_format1.csv (7 columns)"
    )
    report = raw_log.RowReport()
    return event_log.encode(self._clicks(file, report), self.schema, report)

  def _clicks(
    self, file: pathlib.Path, report: raw_log.RowReport
  ) -> Iterator[pl.DataFrame]:
    num_padded = 0
    blocks = raw_csv.read(
      raw_csv.CsvFile(file, _COLUMNS, header=True), report, _SELECT
    )
    for block in raw_log.checked(
      blocks, file, report, self.options.max_malformed_share
    ):
      clicks = block.filter(pl.col('action') == _CLICK)
      report.drop('action other than click', len(block) - len(clicks))
      num_padded += int((clicks['day'].str.len_bytes() < 4).sum())
      yield clicks.select(
        'user', 'item', 'category', _start_of_day(pl.col('day')).alias('time')
      )
    report.notes.append(
      f'days are of {_YEAR}, time stamps the seconds at which they began'
    )
    if num_padded:
      report.notes.append(
        f'{num_padded} kept rows had time stamps without their leading zero'
      )


def _start_of_day(mmdd: pl.Expr) -> pl.Expr:
  """Seconds since 1970 of 'mmdd' or 'mdd', a day of the log's year."""
  number = mmdd.cast(pl.Int64)
  days = {}
  day = datetime.date(_YEAR, 1, 1)
  while day.year == _YEAR:
    days[day.month * 100 + day.day] = day
    day += datetime.timedelta(days=1)
  epoch = datetime.date(1970, 1, 1)
  seconds = {key: (day - epoch).days * 86_400 for key, day in days.items()}
  return number.replace_strict(seconds, return_dtype=pl.Int64)
