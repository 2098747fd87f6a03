"""Times of requests are read as bulk scores and `Trained.score` read them."""

import pathlib
import time
from unittest import mock

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.bundle import times
from dare_jax.bundle.making import writing
from dare_jax.data.history import real_times
from dare_jax.logs import iso_dates
from dare_jax.prediction import raw_ids
from dare_jax.prediction import times as bulk
from dare_jax.store import history_store

_SECONDS = 1_700_000_000


def _store(unit=None, scale=1, ticks=1):
  """A store of numbers, or with a unit of dates, in ticks of a second."""
  values = np.array([_SECONDS * ticks, (_SECONDS + 9) * ticks])
  table = history_store.Table(np.array([0, 2]), {'timestamp': values})
  return mock.Mock(
    history_store.HistoryStore,
    path=pathlib.Path('store'),
    behaviors=table,
    impressions=None,
    manifest={'provenance': {'log': {'time_unit': unit, 'time_scale': scale}}},
  )


def _of(store):
  return times.Times(**writing._times(store))


@pytest.mark.parametrize(
  ('store', 'given'),
  [
    (_store(), [_SECONDS, _SECONDS + 5, -3]),
    (_store(), ['2023-11-14', '2023-11-15T00:13:20.001+02:00']),
    (_store(ticks=1000), [_SECONDS * 1000, _SECONDS * 1000 + 999]),
    (_store(scale=1000, ticks=1000), [_SECONDS, _SECONDS + 1]),
    (_store(scale=1000, ticks=1000), [_SECONDS + 0.25, _SECONDS + 0.0001]),
    (_store('milliseconds', ticks=1000), ['2024-05-01 24:00', '2024/5/1 7:30']),
  ],
)
def test_as_bulk_scores(store, given):
  column = raw_ids.Column(pl.Series('t', given), 't', pathlib.Path('in.csv'))
  made = _of(store)
  ticks = np.array(made.ticks(given))
  np.testing.assert_array_equal(ticks, bulk.Times(store)(column))
  clock = real_times.Clock(store)
  expected = real_times.after(np.array(made.origin), ticks // clock.ticks)
  np.testing.assert_array_equal(made.seconds(ticks), expected)
  if not isinstance(given[0], str) and given[1] != _SECONDS + 0.0001:
    assert made.shown(ticks.tolist()) == given


def test_of_now_and_of_nothing():
  made = _of(_store(ticks=1000))
  now = real_times.Clock(_store(ticks=1000))
  assert abs(made.now() / now.ticks - time.time()) < 60
  assert made.ticks([None, '1700000000000', 5, None])[::3] == [None, None]
  assert made.ticks([]) == []
  assert real_times.origin(np.array([made.origin])) == made.origin


@pytest.mark.parametrize(
  ('given', 'named'),
  [
    (
      [_SECONDS, _SECONDS * 1000],
      'looks like milliseconds .* expected seconds',
    ),
    (['soon'], "'soon': expected seconds since 1970, or a date"),
    ([f'{_SECONDS}000'], 'looks like milliseconds'),
  ],
)
def test_other_times_are_refused(given, named):
  with pytest.raises(errors.UsageError, match=named):
    _of(_store()).ticks(given)


def test_plain_dates_are_those_of_frames():
  parts = (
    ['1700-01-01', '1969/12/31', '2024-2-29', '2023-02-29', '2199-12-31'],
    ['', 'T00:00', ' 7:05:09.5', 't23:59:60,123456789', ' 24:00', ' 24:01'],
    ['', 'Z', ' utc', '+05:30', '-0800', '+24:00'],
  )
  texts = [a + b + c for a in parts[0] for b in parts[1] for c in parts[2]]
  dates = pl.DataFrame({'t': texts}).select(iso_dates.of_column(pl.col('t')))
  expected = dates.to_series().to_physical().to_list()
  assert [iso_dates.nanoseconds_of(text) for text in texts] == expected
  assert 60 < sum(one is not None for one in expected) < len(texts)


def test_a_bundle_that_does_not_tell_is_to_be_made_again():
  told = {'real_time': ['gap'], 'command': 'python -m dare_jax.export X'}
  with pytest.raises(errors.UsageError, match='export again: .*export X'):
    times.of_bundle(pathlib.Path('b'), told)
  assert times.of_bundle(pathlib.Path('b'), {'real_time': []}) is None
