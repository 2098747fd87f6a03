"""What all readers share, and what the Parquet reader takes for a fault."""

from __future__ import annotations

import datetime
import pathlib

import polars as pl
import pytest

from dare_jax import errors
from dare_jax.logs import raw_log
from dare_jax.logs import raw_parquet

_COLUMNS = (
  raw_log.Column('a'),
  raw_log.Column('b', 'str'),
  raw_log.Column('c', 'real_int'),
)


def _read(path, columns=_COLUMNS, share=1.0, select=None):
  report = raw_log.RowReport()
  blocks = raw_parquet.read(
    raw_parquet.ParquetFile(path, columns), report, select
  )
  return list(raw_log.checked(blocks, path, report, share)), report


def test_require_file_names_the_option(write, tmp_path):
  with pytest.raises(errors.UsageError, match='data.input is not set'):
    raw_log.require_file(None, 'a log')
  with pytest.raises(errors.UsageError, match='no such file'):
    raw_log.require_file(tmp_path / 'absent.csv', 'a log')
  with pytest.raises(errors.UsageError, match='is a folder; expected a log'):
    raw_log.require_file(tmp_path, 'a log')
  with pytest.raises(errors.UsageError, match='is empty'):
    raw_log.require_file(write('empty.csv', ''), 'a log')


def test_parquet_rows_with_nulls_or_bad_values_are_malformed(tmp_path):
  path = tmp_path / 'log.parquet'
  pl.DataFrame(
    {
      'a': [1, -1, None, 4, 5],
      'b': ['x', 'x', 'x', None, 'y'],
      'c': [1, 2, 3, 4, -5],
    }
  ).write_parquet(path)
  select = {'a': 'user', 'b': 'item', 'c': 'time'}
  frames, report = _read(path, select=select)
  assert frames[0].columns == ['user', 'item', 'time']
  assert pl.concat(frames).rows() == [(1, 'x', 1), (5, 'y', -5)]
  assert report.dropped == {'malformed': 3}
  assert report.examples == [
    "row 2: (-1, 'x', 2) (a: expected an integer of 0 or more, got -1)",
    "row 3: (None, 'x', 3) (empty a)",
    'row 4: (4, None, 4) (empty b)',
  ]
  with pytest.raises(errors.UsageError, match='3 of 5 rows'):
    _read(path, share=0.5)


def test_parquet_refusals(write, tmp_path):
  not_parquet = pathlib.Path(write('log.parquet', 'a,b,c\n'))
  with pytest.raises(errors.UsageError, match='not a Parquet file'):
    _read(not_parquet)
  path = tmp_path / 'short.parquet'
  pl.DataFrame({'a': [1]}).write_parquet(path)
  with pytest.raises(errors.UsageError, match="no column 'b'; it has a"):
    _read(path)
  pl.DataFrame({'a': [1]}).clear().write_parquet(path)
  with pytest.raises(errors.UsageError, match='no rows'):
    _read(path, _COLUMNS[:1])


def _parquet_rows(path, c):
  pl.DataFrame({'c': c}).write_parquet(path)
  frames, report = _read(path, _COLUMNS[2:])
  return pl.concat(frames)['c'].to_list(), report


def test_parquet_numbers_are_integers_if_they_are_whole(tmp_path):
  path = tmp_path / 'log.parquet'
  values = [1_700_000_000.0, 2.5, float('nan'), float('inf'), 1e30, -3.0]
  rows, report = _parquet_rows(path, values)
  assert rows == [1_700_000_000, -3]
  assert report.examples[0] == (
    'row 2: (2.5,) (c: expected an integer, got 2.5)'
  )
  assert _parquet_rows(path, ['5', ' 6.0', '7.5', 'x'])[0] == [5, 6]


@pytest.mark.parametrize(
  ('name', 'values', 'message'),
  [
    ('b', [['x']], r"column 'b' is of type List\(String\), several values"),
    ('c', [{'x': 1}], r"column 'c' is of type Struct.*; expected numbers"),
    ('c', [datetime.time(1)], "column 'c' is of type Time; expected numbers"),
    ('b', [b'\xff'], 'cannot be read'),
  ],
)
def test_parquet_columns_of_other_types_are_refused(
  tmp_path, name, values, message
):
  path = tmp_path / 'log.parquet'
  frame = pl.DataFrame({'a': [1], 'b': ['x'], 'c': [1]})
  frame.with_columns(pl.Series(name, values)).write_parquet(path)
  with pytest.raises(errors.UsageError, match=message):
    _read(path)
