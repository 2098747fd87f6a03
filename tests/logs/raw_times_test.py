"""Times however a log writes them: one order, one unit, nothing lost."""

from __future__ import annotations

import datetime
import pathlib
import tempfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dare_jax import errors
from dare_jax.configs import csv_log
from dare_jax.logs import options as log_options
from dare_jax.logs import raw_times
from dare_jax.logs import raw_values
from dare_jax.logs.builders import csv_log as csv_builder

_EPOCH = datetime.datetime(1970, 1, 1)


def _read(times, folder, parquet=False, missing=()):
  """Reads a log with these times; returns the whole encoded log."""
  frame = pl.DataFrame(
    {
      'user_id': [f'u{row % 3}' for row in range(len(times))],
      'item_id': list(range(len(times))),
      'category_id': [0] * len(times),
      'timestamp': times,
    }
  )
  path = pathlib.Path(folder) / ('log.parquet' if parquet else 'log.csv')
  frame.write_parquet(path) if parquet else frame.write_csv(path)
  data = csv_log.get_config().data
  data.input, data.max_malformed_share = str(path), 1.0
  data.columns.missing = missing
  builder = csv_builder.CsvLog(
    options=log_options.of_section(data), data_dir=str(folder)
  )
  return builder.read_log()


def _times(times, tmp_path, parquet=False):
  """Returns the times in the order of the file, unit, scale and the report."""
  log = _read(times, tmp_path, parquet)
  order = np.argsort(
    [int(log.raw_ids['item'][int(i) - 2]) for i in log.columns['item_id']]
  )
  values = log.columns['timestamp'][order].tolist()
  return values, log.report.time_unit, log.report.time_scale, log.report


_MOMENTS = st.lists(
  st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2150, 1, 1)),
  min_size=1,
  max_size=20,
)


@pytest.mark.slow
@hypothesis.given(_MOMENTS, st.sampled_from([1, 1_000, 1_000_000]))
def test_every_notation_gives_the_same_log(moments, step):
  micros = [
    (moment - _EPOCH) // datetime.timedelta(microseconds=step) * step
    for moment in moments
  ]
  exact = [_EPOCH + datetime.timedelta(microseconds=m) for m in micros]
  east = datetime.timezone(datetime.timedelta(hours=2, minutes=30))
  utc = [moment.replace(tzinfo=datetime.UTC) for moment in exact]
  seconds = [f'{m // 10**6}.{m % 10**6:06}' for m in micros]
  with tempfile.TemporaryDirectory() as folder:
    logs = [
      _read([moment.isoformat() for moment in exact], folder),
      _read([moment.isoformat(' ') + 'Z' for moment in exact], folder),
      _read([m.astimezone(east).isoformat() for m in utc], folder),
      _read(exact, folder, parquet=True),
      _read(pl.Series(exact, dtype=pl.Datetime('ns')), folder, parquet=True),
      _read(pl.Series(utc), folder, parquet=True),
      _read([str(moment) for moment in exact], folder, parquet=True),
      _read(seconds, folder),
      _read([float(second) for second in seconds], folder, parquet=True),
    ]
  first = logs[0].columns
  unit = logs[0].report.time_unit
  scale = {'seconds': 1, 'milliseconds': 10**3, 'microseconds': 10**6}[unit]
  for log in logs:
    assert (log.report.time_unit or unit) == unit
    assert log.report.time_scale in (1, scale)
    for name, column in first.items():
      np.testing.assert_array_equal(log.columns[name], column)
  expected = sorted(m * scale // 10**6 for m in micros)
  assert sorted(first['timestamp'].tolist()) == expected
  assert scale == 1 or any(m * scale // 1_000 % 10**6 for m in micros)


@pytest.mark.parametrize(
  ('given', 'values', 'unit'),
  [
    (['2024-05-01', '1969-12-31'], [1_714_521_600, -86_400], 'seconds'),
    (['2024-05-01 12:30', '2024-05-01T10'], [1_714_566_600], 'seconds'),
    (['2024/5/1 1:02:03'], [1_714_525_323], 'seconds'),
    (['2024-05-01 12:30:00 UTC'], [1_714_566_600], 'seconds'),
    (
      ['2024-05-01t12:30:00z', '2024-05-01 12:30:00 GMT'],
      [1_714_566_600, 1_714_566_600],
      'seconds',
    ),
    (
      ['2024-05-01T12:30 utc', '2024-05-01T12:30gmt'],
      2 * [1_714_566_600],
      'seconds',
    ),
    # The end of a day is the first moment of the next.
    (
      ['2024-04-30T24:00', '2024-04-30T24:00:00.000Z', '2023-12-31 24:00:00']
      + ['2024-04-30T24:00:01', '2024-04-30T24:01', '2024-04-30T25:00'],
      [1_714_521_600, 1_714_521_600, 1_704_067_200],
      'seconds',
    ),
    (['2024-04-30T24:00:00+02:00'], [1_714_514_400], 'seconds'),
    (['2024-05-01T12:30:00+02:00'], [1_714_559_400], 'seconds'),
    (['2024-05-01T12:30:00,5-0130'], [1_714_572_000_500], 'milliseconds'),
    (
      ['2024-05-01T12:30:00.123456789Z', '2024-05-01'],
      [1_714_566_600_123_456_789, 1_714_521_600 * 10**9],
      'nanoseconds',
    ),
  ],
)
def test_dates_in_text(tmp_path, given, values, unit):
  found = _times(given, tmp_path)
  assert found[:2] == (values, unit)
  assert found[3].malformed == len(given) - len(values)


@pytest.mark.parametrize(
  ('given', 'values', 'scale'),
  [
    (['7', '-3.0', '5.'], [7, -3, 5], 1),
    (['1600000000', '1600000000.5'], [1_600_000_000_000, 1_600_000_000_500], 0),
    (['0.1', '0.0001', '1e1'], [100_000, 100, 10_000_000], 10**6),
    (['1600000000.1234567'], [1_600_000_000_123_456_700], 10**9),
    ([str(2**63 - 1), '-4'], [2**63 - 1, -4], 1),
  ],
)
def test_numbers_in_text(tmp_path, given, values, scale):
  found = _times(given, tmp_path)
  assert found[:3] == (values, None, scale or 1_000)


def test_fractions_that_come_late_give_all_rows_their_unit(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(raw_values, '_FIRST_ROWS', 2)
  monkeypatch.setattr('dare_jax.logs.csv.raw_csv._BLOCK_BYTES', 64)
  given = [str(second) for second in range(20)] + ['20.25', '21']
  values, _, scale, report = _times(given, tmp_path)
  expected = [1_000 * second for second in range(20)] + [20_250, 21_000]
  assert (values, scale) == (expected, 1_000)
  assert not report.malformed


def test_the_first_rows_decide_and_others_are_malformed(tmp_path):
  dates = ['2024-05-01', '2024-05-02', '1714521600', '2024-02-30', 'soon']
  values, _, _, report = _times(dates, tmp_path)
  assert values == [1_714_521_600, 1_714_608_000]
  assert [text[:6] for text in report.examples] == [
    'line 4',
    'line 5',
    'line 6',
  ]
  assert 'timestamp: expected a date or time in ISO 8601' in report.examples[0]
  assert report.examples[0].endswith("first rows, got '1714521600')")
  values, _, _, report = _times(['5', '6.5', '2024-05-01'], tmp_path)
  assert values == [5_000, 6_500]
  assert 'expected a number, as in the first rows' in report.examples[0]
  with pytest.raises(errors.UsageError, match='no usable rows'):
    _times(['01.05.2024 12:30', 'x'], tmp_path)


@pytest.mark.parametrize('missing', ['NULL', '-1', None])
@pytest.mark.parametrize('parquet', [False, True])
def test_missing_times_do_not_decide(tmp_path, monkeypatch, missing, parquet):
  monkeypatch.setattr(raw_values, '_FIRST_ROWS', 2)
  given = [missing, missing, missing, '2024-05-01', missing, '2024-05-02']
  texts = ('',) if missing is None else (missing,)
  log = _read(given, tmp_path, parquet, missing=texts)
  assert sorted(log.columns['timestamp']) == [1_714_521_600, 1_714_608_000]
  assert log.report.dropped == {'missing timestamp': 4}


def test_times_that_64_bit_do_not_hold(tmp_path):
  values, _, _, report = _times(['5', str(2**63), '1e300', 'inf'], tmp_path)
  assert (values, report.malformed) == ([5], 3)
  with pytest.raises(errors.UsageError, match='too large for 64 bit'):
    _times(['9000000000000000000', '0.5'], tmp_path)
  years = ['2024-05-01', '9999-12-31', '0001-01-01']
  assert len(_times(years, tmp_path)[0]) == 1


def test_floats_keep_their_order_and_nan_is_malformed(tmp_path):
  start = 1_600_000_000.1
  floats = [start, np.nextafter(start, 2e9), float('nan'), float('inf'), 1e300]
  values, _, scale, report = _times(floats, tmp_path, parquet=True)
  assert scale == 10**9 and report.malformed == 3
  assert values[0] < values[1]
  assert report.examples[0].endswith('(empty timestamp)')
  values, _, scale, _ = _times([1.0, 2.0, None], tmp_path, parquet=True)
  assert (values, scale) == ([1, 2], 1)


def test_floats_of_32_bit_are_noted(tmp_path):
  times = pl.Series([1_600_000_000.0, 5.0], dtype=pl.Float32)
  values, _, _, report = _times(times, tmp_path, parquet=True)
  assert values == [1_600_000_000, 5]  # A multiple of 128 is not rounded.
  assert report.notes == [
    "log.parquet: 'timestamp' is of 32 bit, in which times above 16,777,216 are"
    ' rounded; write it as integers, or in 64 bit'
  ]


@pytest.mark.parametrize('dtype', [pl.Categorical, pl.Enum])
def test_a_dictionary_of_parquet_is_the_text_that_it_holds(tmp_path, dtype):
  given = ['2024-05-01', '2024-05-02', '2024-05-01']
  if dtype == pl.Enum:
    dtype = pl.Enum(sorted(set(given)))
  found = _times(pl.Series(given, dtype=dtype), tmp_path, parquet=True)
  assert found[:2] == ([1_714_521_600, 1_714_608_000, 1_714_521_600], 'seconds')


def test_dates_and_decimals_of_parquet(tmp_path):
  days = [datetime.date(1970, 1, 2), datetime.date(1969, 12, 31), None]
  found = _times(days, tmp_path, parquet=True)
  assert found[:2] == ([86_400, -86_400], 'seconds')
  exact = pl.Series(['1.5', '2.25']).cast(pl.Decimal(10, 2))
  assert _times(exact, tmp_path, parquet=True)[0] == [1_500, 2_250]


@pytest.mark.parametrize('zone', ['America/New_York', '+05:30', '-08:00'])
def test_parquet_times_with_a_zone_are_moments_of_utc(tmp_path, zone):
  # The first two are 1:30 and 1:10 in New York, where the clock was set back.
  moments = [1_730_611_800, 1_730_614_200, 1_730_622_600]
  frame = pa.table(
    {
      'user_id': ['u'] * 4,
      'item_id': ['a', 'b', 'c', 'd'],
      'category_id': pa.array([*moments, 0], pa.timestamp('s', tz=zone)),
      'timestamp': pa.array([*moments, None], pa.timestamp('s', tz=zone)),
    }
  )
  pq.write_table(frame, tmp_path / 'log.parquet')
  data = csv_log.get_config().data
  data.input, data.max_malformed_share = str(tmp_path / 'log.parquet'), 1.0
  log = csv_builder.CsvLog(
    options=log_options.of_section(data), data_dir=str(tmp_path)
  ).read_log()
  assert log.columns['timestamp'].tolist() == moments
  assert log.columns['item_id'].tolist() == [2, 3, 4]
  assert log.report.examples[0].endswith('(empty timestamp)')


@pytest.mark.parametrize(
  'value', [datetime.timedelta(1), datetime.time(1), True, [1]]
)
def test_columns_that_hold_no_times_are_refused(tmp_path, value):
  with pytest.raises(errors.UsageError, match='expected numbers, dates'):
    _times([value], tmp_path, parquet=True)


def test_dates_beside_numbers_are_refused():
  clock = raw_times.Clock()
  clock.add(pl.Series([1, 2]))
  clock.add(pl.Series([], dtype=pl.Datetime('us')))
  with pytest.raises(errors.UsageError, match='dates in some parts'):
    clock.add(pl.Series([_EPOCH]))
