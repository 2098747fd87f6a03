"""What the readers take for a fault, and what they say about it."""

from __future__ import annotations

import gzip
import pathlib

import polars as pl
import pytest

from dare_jax import errors
from dare_jax.data import raw_log
from dare_jax.data import raw_parquet

_COLUMNS = (
  raw_log.Column('a'),
  raw_log.Column('b', 'str'),
  raw_log.Column('c', 'real_int'),
)


def _read(path, columns=_COLUMNS, header=False, share=1.0, select=None):
  report = raw_log.RowReport()
  blocks = list(
    raw_log.read_csv(pathlib.Path(path), columns, report, header, share, select)
  )
  return pl.concat(blocks).rows(), report


@pytest.mark.parametrize(
  'bad',
  [
    '1,x',  # too few columns
    '1,x,2,3',  # too many
    'one,x,2',  # letters for a number
    '-1,x,2',  # a negative id
    '9223372036854775808,x,2',  # above int64
    ',x,2',  # an empty field
    '',  # an empty line
    '1,x,2.5',
  ],
)
def test_a_malformed_row_is_left_out_and_reported_with_its_line(write, bad):
  path = write('log.csv', f'1,x,2\n{bad}\n3,y,-4\n')
  rows, report = _read(path)
  assert rows == [(1, 'x', 2), (3, 'y', -4)]
  assert report.rows_read == 3
  assert report.malformed == 1
  assert report.dropped == {'malformed': 1}
  assert report.examples == [f'line 2: {bad!r}']


def test_a_quote_never_closed_does_not_swallow_the_lines_after_it(write):
  path = write('log.csv', '1,"x",2\n3,"y,4\n5,z,6\n')
  assert _read(path)[0] == [(1, 'x', 2), (3, 'y', 4), (5, 'z', 6)]


def test_line_numbers_count_the_header_and_earlier_blocks(write, monkeypatch):
  monkeypatch.setattr(raw_log, '_BLOCK_BYTES', 16)
  path = write('log.csv', 'a,b,c\n' + '1,x,2\n' * 10 + 'bad,x,2\n1,x,2\n')
  rows, report = _read(path, header=True)
  assert len(rows) == 11
  assert report.examples == ["line 12: 'bad,x,2'"]


@pytest.mark.parametrize('last', ['7,x', '7', 'q', '7,,'])
def test_a_truncated_last_line_is_no_error(write, last):
  path = write('log.csv', f'1,x,2\n{last}')
  rows, report = _read(path, share=0.0)
  assert rows == [(1, 'x', 2)]
  assert report.malformed == 0
  assert report.dropped == {'truncated last line': 1}
  assert 'line 2' in report.notes[0]


def test_a_sound_last_line_without_a_line_break_is_kept(write):
  rows, report = _read(write('log.csv', '1,x,2\n3,y,4'))
  assert rows == [(1, 'x', 2), (3, 'y', 4)]
  assert not report.dropped


def test_unselected_fields_may_be_empty_but_not_missing(write):
  select = {'a': 'user'}
  path = write('log.csv', '1,,\n2,x,\n3,x\n4\n5,x,1,1\n6,"p,q",\n')
  rows, report = _read(path, select=select)
  assert rows == [(1,), (2,), (6,)]
  assert report.dropped == {'malformed': 3}


def test_an_optional_field_may_be_empty(write):
  columns = (raw_log.Column('a'), raw_log.Column('b', 'str', required=False))
  rows, report = _read(write('log.csv', '1,\n2,x\n3\n'), columns)
  assert rows == [(1, ''), (2, 'x')]
  assert report.malformed == 1


def test_a_pattern_must_match_the_whole_text(write):
  columns = (raw_log.Column('a', pattern='[01]'),)
  rows, report = _read(write('log.csv', '1\n0\n10\n2\n'), columns)
  assert rows == [(1,), (0,)]
  assert report.malformed == 2


def test_bytes_that_are_no_text_are_malformed_not_fatal(write):
  rows, report = _read(write('log.csv', b'1,x,2\n\xff\xfe,x,2\n3,y,4\n'))
  assert rows == [(1, 'x', 2), (3, 'y', 4)]
  assert report.malformed == 1


def test_gzip_and_windows_line_ends(write):
  path = write('log.csv.gz', gzip.compress(b'1,x,2\r\n3,y,4\r\n'))
  assert _read(path)[0] == [(1, 'x', 2), (3, 'y', 4)]


def test_damaged_gzip_is_refused(write):
  whole = gzip.compress(b'1,x,2\n' * 1000)
  with pytest.raises(errors.UsageError, match='damaged gzip'):
    _read(write('log.csv.gz', whole[: len(whole) // 2]))
  with pytest.raises(errors.UsageError, match='damaged gzip'):
    _read(write('other.csv.gz', b'1,x,2\n'))


@pytest.mark.parametrize(
  ('text', 'header', 'message'),
  [
    ('1,2\n', False, r'a,b,c \(3\); line 1 has 2'),
    ('a,b,d\n1,x,2\n', True, 'header with the columns a,b,c'),
    ('a,b,c\n', True, 'no rows'),
    (b'\xff\xfe\x00,1,2\n', False, 'not UTF-8'),
  ],
)
def test_a_file_of_another_kind_is_refused(write, text, header, message):
  with pytest.raises(errors.UsageError, match=message):
    _read(write('log.csv', text), header=header)


def test_too_many_malformed_rows_are_refused(write):
  path = write('log.csv', '1,x,2\n' * 99 + 'x,x,2\n')
  assert len(_read(path, share=0.01)[0]) == 99
  with pytest.raises(errors.UsageError, match="1 of 100 .*line 100: 'x,x,2'"):
    _read(path, share=0.009)


def test_require_file_names_the_option(write, tmp_path):
  with pytest.raises(errors.UsageError, match='data.input is not set'):
    raw_log.require_file(None, 'a log')
  with pytest.raises(errors.UsageError, match='no such file'):
    raw_log.require_file(tmp_path / 'absent.csv', 'a log')
  with pytest.raises(errors.UsageError, match='is empty'):
    raw_log.require_file(write('empty.csv', ''), 'a log')


def test_header_reads_quoted_names_and_refuses_doubles(write):
  path = pathlib.Path(write('log.csv', '\ufeff"a,b", c\r\n1,2\r\n'))
  assert raw_log.csv_header(path) == ['a,b', 'c']
  with pytest.raises(errors.UsageError, match="'a' twice"):
    raw_log.csv_header(pathlib.Path(write('twice.csv', 'a,b,a\n')))


def test_parquet_rows_with_nulls_or_bad_values_are_malformed(tmp_path):
  path = tmp_path / 'log.parquet'
  pl.DataFrame(
    {
      'a': [1, -1, None, 4, 5],
      'b': ['x', 'x', 'x', None, 'y'],
      'c': [1, 2, 3, 4, -5],
    }
  ).write_parquet(path)
  report = raw_log.RowReport()
  select = {'a': 'user', 'b': 'item', 'c': 'time'}
  frames = list(raw_parquet.read(path, _COLUMNS, report, 1.0, select))
  assert frames[0].columns == ['user', 'item', 'time']
  assert pl.concat(frames).rows() == [(1, 'x', 1), (5, 'y', -5)]
  assert report.dropped == {'malformed': 3}
  with pytest.raises(errors.UsageError, match='3 of 5 rows'):
    list(raw_parquet.read(path, _COLUMNS, raw_log.RowReport(), 0.5))


def test_parquet_refusals(write, tmp_path):
  not_parquet = pathlib.Path(write('log.parquet', 'a,b,c\n'))
  with pytest.raises(errors.UsageError, match='not a Parquet file'):
    list(raw_parquet.read(not_parquet, _COLUMNS, raw_log.RowReport(), 1.0))
  path = tmp_path / 'short.parquet'
  pl.DataFrame({'a': [1]}).write_parquet(path)
  with pytest.raises(errors.UsageError, match="no column 'b'; it has a"):
    list(raw_parquet.read(path, _COLUMNS, raw_log.RowReport(), 1.0))
  pl.DataFrame({'a': [1]}).clear().write_parquet(path)
  with pytest.raises(errors.UsageError, match='no rows'):
    list(raw_parquet.read(path, _COLUMNS[:1], raw_log.RowReport(), 1.0))
