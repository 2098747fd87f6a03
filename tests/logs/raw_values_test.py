"""What the values of a log's columns stand for, and which are missing."""

from __future__ import annotations

import datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dare_jax import errors
from dare_jax.configs import csv_log
from dare_jax.logs import options as log_options
from dare_jax.logs.builders import csv_log as csv_builder

_NUM_ROWS = 6


@pytest.fixture
def read(tmp_path):
  """Reads a log of six rows in which some columns are given."""

  def read_log(parquet=False, missing=(), share=1.0, fields=(), **given):
    columns = {
      'user_id': ['a', 'b', 'c', 'd', 'e', 'f'],
      'item_id': [1, 2, 3, 4, 5, 6],
      'category_id': [1] * _NUM_ROWS,
      'timestamp': list(range(_NUM_ROWS)),
    } | given
    frame = pl.DataFrame(columns)
    path = tmp_path / ('log.parquet' if parquet else 'log.csv')
    frame.write_parquet(path) if parquet else frame.write_csv(path)
    data = csv_log.get_config().data
    data.input, data.max_malformed_share = str(path), share
    data.columns.missing, data.columns.fields = missing, fields
    data.columns.label = 'label' if 'label' in columns else None
    builder = csv_builder.CsvLog(
      options=log_options.of_section(data), data_dir=str(tmp_path)
    )
    return builder.read_log()

  return read_log


def _raw(log, field):
  return log.raw_ids[field].to_list()


def test_whole_floats_are_the_ids_of_integers(read):
  users = [5.0, 5.0, -7.0, float(2**53), None, float('nan')]
  log = read(parquet=True, user_id=users)
  assert _raw(log, 'user') == ['5', '-7', str(2**53)]
  assert log.report.dropped == {'malformed': 2}
  assert [text[-15:] for text in log.report.examples] == ['(empty user_id)'] * 2
  decimals = pl.Series(['5.00', '6.00'] * 3).cast(pl.Decimal(8, 2))
  assert _raw(read(parquet=True, item_id=decimals), 'item') == ['5', '6']


def test_other_floats_are_no_ids_but_values(read):
  floats = [5.5, 5.0, float('inf'), 1e300, -0.5, 7.0]
  log = read(parquet=True, item_id=floats)
  assert _raw(log, 'item') == ['5', '7']
  assert log.report.examples[0].endswith(
    '(item_id: expected text or a whole number, got 5.5)'
  )
  log = read(parquet=True, fields=('price',), price=[*floats[:5], None])
  assert _raw(log, 'price') == ['5.5', '5', 'inf', '1e+300', '-0.5', '']
  log = read(parquet=True, category_id=[1.5, 2.0, None, float('nan'), 2.0, 3.0])
  assert _raw(log, 'category') == ['1.5', '2', '3']
  assert log.report.malformed == 2


@pytest.mark.parametrize(
  'labels',
  [
    ['0', '1', '1', '0', '1', '0'],
    ['False', 'TRUE', 'true', 'false', 'True', 'FALSE'],
    ['0.0', '1.0', '1', '0.', 'true', '0'],
    ['00', '01', '+1', '-0', '1', '0'],
    ['00', '01', '+1', '-0', 'true', '0'],  # Other rows change no label.
  ],
)
def test_labels_in_text(read, labels):
  for parquet in (False, True):
    log = read(label=labels, parquet=parquet)
    assert log.columns['label'].tolist() == [0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize(
  'dtype', [pl.Boolean, pl.Int8, pl.UInt64, pl.Float32, pl.Float64]
)
def test_labels_of_each_type(read, dtype):
  labels = pl.Series([0, 1, 1, 0, None, 0]).cast(dtype)
  log = read(label=labels, parquet=True)
  assert log.columns['label'].tolist() == [0, 1, 1, 0, 0]
  assert log.report.examples[0].endswith('(empty label)')


@pytest.mark.parametrize(
  'labels',
  [
    ['0', '1', '2', 'yes', '0.5', '-1'],
    [0.0, 1.0, 2.0, 0.5, float('inf'), -1.0],
    [0, 1, 2, 5, 7, -1],
  ],
)
def test_what_is_no_label_is_malformed(read, labels):
  log = read(label=labels, parquet=True)
  assert log.columns['label'].tolist() == [0, 1]
  for example, label in zip(log.report.examples, labels[2:], strict=True):
    assert example.endswith(
      f'(label: expected 0 or 1 (or false or true), got {label!r})'
    )


def test_decimals_that_are_too_long_are_refused(tmp_path):
  names = ('user_id', 'item_id', 'category_id', 'timestamp')
  long = pa.array([1], pa.decimal256(50, 2))
  pq.write_table(pa.table(dict.fromkeys(names, long)), tmp_path / 'l.parquet')
  data = csv_log.get_config().data
  data.input = str(tmp_path / 'l.parquet')
  builder = csv_builder.CsvLog(
    options=log_options.of_section(data), data_dir=str(tmp_path)
  )
  with pytest.raises(errors.UsageError, match=r'38 digits at most'):
    builder.read_log()


def test_a_label_of_another_type_is_refused(read):
  days = [datetime.date(2024, 5, 1)] * _NUM_ROWS
  with pytest.raises(errors.UsageError, match="'label' is of type Date"):
    read(label=days, parquet=True)


@pytest.mark.parametrize('parquet', [False, True])
def test_rows_with_missing_values_are_left_out(read, parquet):
  given = {
    'user_id': ['NULL', 'b', 'NULL', 'd', '\\N', 'f'],
    'item_id': ['NULL', 'NULL', '3', '4', '5', 'nan'],
    'shop': ['NULL', 'y', 'z', '\\N', 'y', 'y'],
  }
  log = read(parquet, ('NULL', '\\N'), share=0.0, fields=('shop',), **given)
  assert log.report.dropped == {'missing user_id': 3, 'missing item_id': 1}
  assert log.report.malformed == 0
  assert _raw(log, 'user') == ['d', 'f']
  assert _raw(log, 'shop') == ['', 'y']
  assert log.report.notes == [
    "1 row has the item 'nan'; if that stands for a missing value, leave them"
    " out with --config.data.columns.missing='NULL,\\N,nan'"
  ]


@pytest.mark.parametrize('parquet', [False, True])
def test_an_empty_value_may_be_declared_missing(read, parquet):
  users = ['a', None, 'c', None, 'e', 'f']
  times = [0, 1, None, None, 4, -1]
  given = {'user_id': users, 'timestamp': times, 'parquet': parquet}
  log = read(missing=('', '-1'), share=0.0, **given)
  assert log.report.dropped == {'missing user_id': 2, 'missing timestamp': 2}
  log = read(**given)
  assert log.report.dropped == {'malformed': 3}
  with pytest.raises(errors.UsageError) as caught:
    read(share=0.1, **given)
  assert '3 of 6 rows are malformed' in str(caught.value)
  assert '--config.data.columns.missing= leaves them out' in str(caught.value)


def test_missing_values_of_numbers(read):
  log = read(
    parquet=True,
    missing=('-1', 'NaN', '0'),
    share=0.0,
    user_id=[1, -1, 2, 3, 4, 5],
    item_id=[1.0, 2.0, float('nan'), -1.0, 5.0, 6.0],
    label=[False, True, True, True, True, True],
    timestamp=[1, 2, 3, 4, 0, 6],
  )
  assert log.report.dropped == {
    'missing user_id': 1,
    'missing item_id': 2,
    'missing timestamp': 1,
  }


def test_short_rows_are_malformed_where_an_empty_value_is_missing(tmp_path):
  path = tmp_path / 'log.csv'
  path.write_text(
    'user_id,item_id,category_id,timestamp\na,1,1,\na,1,1\na,1,1,5\n'
  )
  data = csv_log.get_config().data
  data.input, data.max_malformed_share = str(path), 1.0
  data.columns.missing = ('',)
  builder = csv_builder.CsvLog(
    options=log_options.of_section(data), data_dir=str(tmp_path)
  )
  report = builder.read_log().report
  assert report.dropped == {'missing timestamp': 1, 'malformed': 1}
  assert report.examples == ["line 3: 'a,1,1' (3 fields, the header has 4)"]


@pytest.mark.parametrize('parquet', [False, True])
def test_texts_like_missing_ones_are_noted(read, parquet):
  users = ['NULL', 'NULL', 'nan', 'a', 'Nancy', 'a']
  log = read(parquet, user_id=users, category_id=['x', 'N/A', *'xxxx'])
  assert _raw(log, 'user') == ['NULL', 'nan', 'a', 'Nancy']
  assert log.report.notes == [
    "2 rows have the user 'NULL', 1 row has the user 'nan', 1 row has the"
    " category 'N/A'; if that stands for a missing value, leave them out with"
    ' --config.data.columns.missing=NULL,nan,N/A'
  ]
  log = read(parquet, item_id=['None', *'abcde'])
  assert log.report.notes[0].endswith('missing=None,')


def test_values_that_look_alike_are_noted(read):
  items = ['5', '5.0', '6.0', '1.50', '7.00', '7']
  users = [' a', 'a', 'b ', 'b', 'c', 'c']
  notes = read(parquet=True, item_id=items, user_id=users).report.notes
  assert [note[:34] for note in notes] == [
    '2 users begin or end in a space, s',
    "2 items are there twice, such as '",
  ]


def test_spaces_around_values_of_csv_go(tmp_path):
  path = tmp_path / 'log.csv'
  path.write_text(
    'user_id, item_id, "category_id" ,timestamp\n'
    'a, 1,"x", 3\n a ,1 ," x ", 4\na\t, "1", x,2024\n'
  )
  data = csv_log.get_config().data
  data.input = str(path)
  builder = csv_builder.CsvLog(
    options=log_options.of_section(data), data_dir=str(tmp_path)
  )
  log = builder.read_log()
  assert _raw(log, 'user') == ['a']
  assert _raw(log, 'item') == ['1']
  assert _raw(log, 'category') == ['x', ' x ']
  assert log.columns['timestamp'].tolist() == [3, 4, 2024]


def test_times_of_day_are_values_with_their_fractions(read):
  day = [datetime.time(12, 30, 0, 500), datetime.time(12, 30)]
  moments = [
    datetime.datetime.combine(datetime.date(2024, 5, 1), t) for t in day
  ]
  log = read(parquet=True, fields=('at', 'on'), at=day * 3, on=moments * 3)
  assert _raw(log, 'at') == ['12:30:00.000500', '12:30:00']
  assert _raw(log, 'on') == [
    *('2024-05-01 12:30:00.000500', '2024-05-01 12:30:00.000000')
  ]
  with pytest.raises(errors.UsageError, match='type Duration.*expected text,'):
    read(parquet=True, fields=('at',), at=[datetime.timedelta(1)] * _NUM_ROWS)


@pytest.mark.parametrize(('dtype', 'limit'), [('f4', 2**24), ('f8', 2**53)])
def test_ids_that_floats_may_have_merged_are_noted(read, dtype, limit):
  items = np.array([limit, limit + 1, -limit - 3, 1, 2, 3], dtype)
  found = read(parquet=True, item_id=items).report.notes
  kind = {'f4': 'Float32', 'f8': 'Float64'}[dtype]
  assert found == [
    f"log.parquet: 'item_id' is of type {kind}, which rounds whole numbers from"
    f' {limit:,} on: 3 rows may have the id of others; write the column as'
    ' integers, or as text'
  ]
  # Small ones are exact; what is no id is no matter.
  items[:3] = limit - 1
  log = read(parquet=True, item_id=items, fields=('x',), x=items * 0.5)
  assert not [text for text in log.report.notes if 'rounded' in text]
