"""Times of an input in the unit of a log: what is before stays before."""

import pathlib
import types

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.prediction import raw_ids
from dare_jax.prediction import times
from dare_jax.store import history_store

_SECONDS = 1_700_000_000


def _store(unit=None, scale=1, values=(_SECONDS, _SECONDS + 9, _SECONDS + 2)):
  table = history_store.Table(
    np.array([0, 2, len(values)]), {'timestamp': np.array(values)}
  )
  log = {'time_unit': unit, 'time_scale': scale}
  return types.SimpleNamespace(
    path=pathlib.Path('store'),
    behaviors=table,
    impressions=None,
    manifest={'provenance': {'log': log}},
  )


def _read(store, values, **kwargs):
  series = pl.Series('t', values, **kwargs)
  return times.Times(store)(raw_ids.Column(series, 't', pathlib.Path('in.csv')))


@pytest.mark.parametrize(
  'given',
  [
    [_SECONDS, _SECONDS + 1],
    [str(_SECONDS), f' {_SECONDS + 1} '],
    [float(_SECONDS), _SECONDS + 0.25],
    [f'{_SECONDS}.0', f'{_SECONDS}.25'],
    ['2023-11-14 22:13:20', '2023-11-14 22:13:20.25'],
    ['2023-11-14T22:13:20Z', '2023-11-15T00:13:20.001+02:00'],
  ],
)
def test_the_first_tick_that_is_not_before(given):
  found = _read(_store(), given)
  assert found.tolist() == [_SECONDS, _SECONDS + 1]


def test_dates_of_each_type():
  when = pl.Series([_SECONDS * 1_000, _SECONDS * 1_000 + 1]).cast(
    pl.Datetime('ms', 'Europe/Paris')
  )
  store = _store('seconds')
  assert _read(store, when).tolist() == [_SECONDS, _SECONDS + 1]
  fine = _store('milliseconds', values=(_SECONDS * 1_000,) * 2)
  assert _read(fine, when).tolist() == [
    _SECONDS * 1_000,
    _SECONDS * 1_000 + 1,
  ]


def test_numbers_with_fractions_in_the_log():
  store = _store(scale=1_000, values=(500, 1_500))
  assert _read(store, [0.5, 1.5001, 2.0]).tolist() == [500, 1_501, 2_000]
  assert _read(store, ['0.5', '1.5001', '2']).tolist() == [500, 1_501, 2_000]


@pytest.mark.parametrize(
  ('store', 'given', 'named'),
  [
    (_store(), [_SECONDS * 1_000], 'looks like milliseconds'),
    (_store('seconds'), [5], 'is a number, but the times of the log are dates'),
    (_store(values=(3, 7)), ['2024-01-01'], 'unknown unit'),
    (_store(), [_SECONDS, None], 'row 2: the time is missing; expected'),
    (_store(), [True], 'is of type Boolean'),
  ],
)
def test_other_times_are_refused(store, given, named):
  with pytest.raises(errors.UsageError, match=named):
    _read(store, given)


def test_a_log_out_of_order_is_refused():
  with pytest.raises(errors.UsageError, match='not in the order of their tim'):
    _read(_store(values=(5, 3, 1)), [4])
