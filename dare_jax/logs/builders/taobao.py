"""Taobao: nine days of behavior of a million users of a large shop."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib

import polars as pl

from dare_jax.logs import event_log
from dare_jax.logs import raw_log
from dare_jax.logs.builders import base
from dare_jax.logs.csv import raw_csv

_COLUMNS = (
  raw_log.Column('user'),
  raw_log.Column('item'),
  raw_log.Column('category'),
  raw_log.Column('type', 'str', pattern='pv|buy|cart|fav'),
  raw_log.Column('time', 'real_int'),  # the file holds negative ones too
)
# Published range, days of UTC+8: from 2017-11-25 to the end of 2017-12-03.
_FIRST_SECOND = 1_511_539_200
_END_SECOND = 1_512_316_800


class Taobao(base.LogBuilder):
  """Page views of the log `UserBehavior.csv` (Alibaba Tianchi, data set 649).

  The file has no header and five columns: user, item, category, type, time in
  seconds. Only rows of type `pv` are kept. Time stamps outside the published
  range are kept, as the published preprocessing does, and counted.
  """

  @property
  def schema(self) -> event_log.LogSchema:
    return event_log.LogSchema(sort_by_time=self.options.sort_by_time)

  def read_log(self) -> event_log.EventLog:
    """Reads the page views of UserBehavior.csv."""
    file = raw_log.require_file(
      self.options.input, "Taobao's UserBehavior.csv (no header, 5 columns)"
    )
    report = raw_log.RowReport()
    return event_log.encode(self._views(file, report), self.schema, report)

  def _views(
    self, file: pathlib.Path, report: raw_log.RowReport
  ) -> Iterator[pl.DataFrame]:
    num_outside = 0
    in_range = pl.col('time').is_between(
      _FIRST_SECOND, _END_SECOND, closed='left'
    )
    blocks = raw_csv.read(raw_csv.CsvFile(file, _COLUMNS, header=False), report)
    for block in raw_log.checked(
      blocks, file, report, self.options.max_malformed_share
    ):
      views = block.filter(pl.col('type') == 'pv').drop('type')
      report.drop('type other than pv', len(block) - len(views))
      num_outside += len(views) - int(views.select(in_range.sum()).item())
      yield views
    if num_outside:
      report.notes.append(
        f'{num_outside} kept rows have time stamps outside the published'
        ' range, 2017-11-25 to 2017-12-03 (UTC+8)'
      )
