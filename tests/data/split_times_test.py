"""Dates of a split, in the unit of the log."""

from __future__ import annotations

import dataclasses

import pytest

from dare_jax import errors
from dare_jax.data import split_times
from dare_jax.data import splits
from dare_jax.logs import raw_log
from tests.data import stores

_DAY = 86_400
_START = 1_714_521_600  # 2024-05-01


def _store(times, **report):
  rows = [(row % 2, row, 0, time) for row, time in enumerate(times)]
  store = stores.build(rows)
  log = raw_log.RowReport(**report).to_json()
  manifest = {**store.manifest, 'provenance': {'log': log}}
  return dataclasses.replace(store, manifest=manifest)


def _of(store, value):
  data = stores.data_options(val_from=value)
  return split_times.of_store(store, data).val_from


@pytest.mark.parametrize('scale', [1, 10**3, 10**6, 10**9])
def test_a_date_is_in_the_unit_of_the_log(scale):
  store = _store([(_START + day * _DAY) * scale for day in range(9)])
  assert _of(store, '2024-05-03') == (_START + 2 * _DAY) * scale
  assert _of(store, '2024-05-03T02:00+02:00') == (_START + 2 * _DAY) * scale
  assert _of(store, '2024-05-03 00:00:01') == ((_START + 2 * _DAY + 1) * scale)
  # The first time of the log that is not before it.
  late = _of(store, '2024-05-03 00:00:00.000000001')
  assert late == (_START + 2 * _DAY) * scale + 1
  assert _of(store, late) == late
  assert _of(store, None) is None


def test_numbers_are_as_in_the_log():
  store = _store([_START * 1_000, _START * 1_000 + 500], time_scale=1_000)
  assert _of(store, _START) == _START * 1_000
  assert _of(store, _START + 0.5) == _START * 1_000 + 500


def test_a_number_of_another_unit_is_refused():
  store = _store([_START * 1_000 + 1], time_unit='milliseconds')
  with pytest.raises(errors.UsageError) as error:
    _of(store, _START)
  assert 'looks like seconds since 1970' in str(error.value)
  assert 'as a date: 2024-05-01' in str(error.value)


def test_the_size_of_the_logs_own_numbers_tells_the_unit():
  # Seconds from the start of an experiment, with fractions.
  store = _store([500_000_500, 900_000_000], time_scale=1_000)
  assert split_times.unit_of(store) == (None, False)
  assert _of(store, 600_000.5) == 600_000_500
  milliseconds = _store([_START * 10**6 + 1], time_scale=1_000)
  assert split_times.unit_of(milliseconds) == ('microseconds', False)
  assert _of(milliseconds, _START * 1_000) == _START * 10**6
  with pytest.raises(errors.UsageError, match='give it in milliseconds, or'):
    _of(milliseconds, _START)


def test_a_date_needs_a_unit():
  with pytest.raises(errors.UsageError, match='from 0 to 8, are numbers of an'):
    _of(_store(range(9)), '2024-05-01')
  known = _store([0, 5], time_unit='seconds')
  assert _of(known, '2024-05-01') == _START


@pytest.mark.parametrize(
  'value', ['soon', '2024-13-01', '05/01/2024', True, float('nan'), (1,), '']
)
def test_what_is_no_time_is_refused(value):
  with pytest.raises(errors.UsageError, match='data.val_from=.*ISO 8601'):
    _of(_store([_START]), value)


def test_by_time_takes_dates():
  store = _store([_START + hour * 3_600 for hour in range(96)])
  data = stores.data_options(
    split='by_time',
    train_from='2024-05-01T12:00',
    val_from='2024-05-03',
    test_from=_START + 3 * _DAY,
    min_events=1,
    min_history=1,
  )
  made = splits.make_splits(store, data)
  assert {name: len(part) for name, part in made.items()} == {
    'train': 36,
    'val': 24,
    'test': 24,
  }
  assert splits.known_before(store, data, 'train') == _START + 2 * _DAY
  data = dataclasses.replace(data, test_from='2024-06-01')
  with pytest.raises(errors.UsageError, match=r'from \d+ \(2024-06-01 00:00:0'):
    splits.make_splits(store, data)
  data = dataclasses.replace(data, val_from='2024-07-01')
  with pytest.raises(errors.UsageError, match='2024-07-01 must be before data'):
    splits.make_splits(store, data)
