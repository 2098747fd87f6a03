"""Times of batches against the log's, and logs that have none."""

import dataclasses
import datetime

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.data.history import real_times
from dare_jax.logs import event_log
from tests.data import stores

_LABELLED = event_log.LogSchema(has_labels=True)
_YEARS = 366 * 86_400
_LENGTH = 7


def _rows(start, ticks=1, has_labels=False):
  """Users of 30 events at whole ticks, several at a time."""
  rng = np.random.default_rng(4)
  rows = []
  for user in range(6):
    span = int(rng.choice([3_600, 86_400 * 30, 20 * _YEARS]))
    for _ in range(30):
      second = start + int(rng.integers(30)) * span // 30
      row = (user, int(rng.integers(40)), int(rng.integers(5)))
      row = (*row, second * ticks + int(rng.integers(2)) * (ticks // 2))
      rows.append((*row, int(rng.random() < 0.5)) if has_labels else row)
  return rows


def _dated(rows):
  """Returns a store of a log whose times are dates."""
  first = datetime.datetime(1970, 1, 1)
  store = stores.build(
    [(*row[:3], first + datetime.timedelta(seconds=row[3])) for row in rows]
  )
  told = {'provenance': {'log': {'time_unit': 'seconds'}}}
  return dataclasses.replace(store, manifest={**store.manifest, **told})


_STORES = {
  'seconds': (stores.build(_rows(1_500_000_000)), 1, 1),
  'nanoseconds': (stores.build(_rows(1_500_000_000, 10**9)), 10**9, 1),
  'before_1970': (_dated(_rows(-40 * _YEARS)), 1, 1),
  'windows': (stores.build(_rows(1_500_000_000)), 1, 3),
  'impressions': (
    stores.build(_rows(1_500_000_000, has_labels=True), schema=_LABELLED),
    1,
    3,
  ),
}


def _batches(store, per_window):
  data = stores.data_options(
    min_events=0, min_history=1, history_length=_LENGTH, unknown_rate=0.0
  )
  moments = splits.make_splits(store, data)['train']
  made = pipeline.Pipeline(
    store, moments, 'train', data, 1, per_window,
    pipeline.Layout(with_rows=True, with_times=True),
  )  # fmt: skip
  steps = int(np.ceil(made.num_examples / 5))
  return [made.train_batch(step, 5 * per_window) for step in range(steps)]


@pytest.mark.parametrize('name', _STORES)
def test_gaps_and_hours_are_those_of_the_log(name):
  store, ticks, per_window = _STORES[name]
  behaviors = store.behaviors.columns['timestamp'].astype(np.int64)
  targets = (store.impressions or store.behaviors).columns
  # Of a user's item, the times at which it was a target.
  when = {}
  table = store.impressions or store.behaviors
  for user in range(store.num_users):
    for row in range(table.offsets[user], table.offsets[user + 1]):
      key = user, int(targets['item_id'][row])
      time = int(targets['timestamp'][row]) // ticks
      when.setdefault(key, set()).add(time)
  seen = 0
  for batch in _batches(store, per_window):
    assert batch.now.dtype == batch.history.time.dtype == np.int32
    for b, m in np.ndindex(*batch.end.shape):
      own = np.flatnonzero(batch.history.mask[b])
      if not batch.targets.weight[b, m].any() or not len(own):
        continue
      row = batch.history.row[b, own] - 1
      user = int(np.searchsorted(store.behaviors.offsets, row[0], 'right')) - 1
      item = int(batch.targets.ids['item'][b, m, 0])
      # The origin is the same week's for all that a window holds.
      origins = behaviors[row] // ticks - batch.history.time[b, own]
      assert len(set(origins)) == 1
      origin = int(origins[0])
      assert (origin - 4 * 86_400) % (7 * 86_400) == 0
      now = origin + int(batch.now[b, m])
      assert now in when[user, item]
      visible = own[own < batch.end[b, m]]
      assert (batch.history.time[b, visible] <= batch.now[b, m]).all()
      seen += 1
    assert not batch.history.time[~batch.history.mask].any()
  assert seen > 20


def test_without_the_model_s_asking_there_are_no_times():
  store, *_ = _STORES['seconds']
  data = stores.data_options(min_events=0, min_history=1, history_length=5)
  moments = splits.make_splits(store, data)['train']
  batch = pipeline.Pipeline(store, moments, 'train', data, 1).train_batch(0, 4)
  assert batch.now is None and batch.history.time is None


def test_what_is_more_than_68_years_off_is_cut():
  limits = np.iinfo(np.int32)
  seconds = np.array([-(2**40), -5, 2**40])
  found = real_times.after(np.zeros(3, np.int64), seconds)
  assert found.tolist() == [limits.min, -5, limits.max]


def test_times_without_a_unit_are_refused():
  store = stores.build([(0, i, 0, i) for i in range(30)])
  real_times.check(store, ())
  with pytest.raises(errors.UsageError, match='the times of the log count'):
    real_times.check(store, ('gap',))


def test_whole_days_have_no_hour():
  day = 86_400
  store = stores.build([(0, i, 0, (20_000 + i) * day) for i in range(30)])
  real_times.check(store, ('gap', 'weekday'))
  with pytest.raises(errors.UsageError, match=r'real_time=gap\.$'):
    real_times.check(store, ('gap', 'hour'))
