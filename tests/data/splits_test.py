"""Each protocol against a slow twin that walks a user's events in Python."""

import dataclasses
import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.data import splits
from dare_jax.logs import event_log
from tests.data import stores

_ROWS = stores.logs()
_LABELLED = event_log.LogSchema(has_labels=True)
_LABELLED_ROWS = stores.logs(has_labels=True)
_NONE = {'train': [], 'val': [], 'test': []}


def _rows(moments):
  """(user, end, target, count) of every moment, in order."""
  columns = (moments.user, moments.end, moments.target, moments.count)
  return [
    tuple(int(value) for value in row) for row in zip(*columns, strict=True)
  ]


def _made(store, data):
  """The moments of each split; without the refusal of empty splits."""
  made = splits.PROTOCOLS[data.split](store, data)
  return {name: _rows(moments) for name, moments in made.items()}


def _sessions(events):
  return [
    list(group)
    for _, group in itertools.groupby(events, lambda e: e['timestamp'])
  ]


def _slow_leave_last(store, data):
  first, last, step = data.train_positions
  made = {name: [] for name in _NONE}
  for user in range(store.num_users):
    events = stores.events_of(store.behaviors, user)
    if len(events) < max(data.min_events, last + 1):
      continue
    for name, positions in (
      ('train', range(first, last + 1, step)),
      ('val', [2]),
      ('test', [1]),
    ):
      for position in positions:
        row = events[-position]['row']
        made[name].append((user, row, row, 1))
  return made


def _slow_sessions(store, data, split_of):
  """`split_of(sessions from the end, time)` names a session's split."""
  made = {name: [] for name in _NONE}
  for user in range(store.num_users):
    events = stores.events_of(store.behaviors, user)
    shown = events
    if store.impressions is not None:
      shown = stores.events_of(store.impressions, user)
    sessions = _sessions(shown)
    train = []
    for number, session in enumerate(sessions):
      now = session[0]['timestamp']
      before = [e for e in events if e['timestamp'] < now]
      if len(events) < data.min_events or len(before) < data.min_history:
        continue
      end = int(store.behaviors.offsets[user]) + len(before)
      width = 1
      if store.impressions is not None:
        width = 1 + data.num_negatives
      for start in range(0, len(session), width):
        group = session[start : start + width]
        moment = (user, end, group[0]['row'], len(group))
        name = split_of(len(sessions) - 1 - number, now)
        (train if name == 'train' else made[name]).append(moment)
    limit = data.max_train_moments
    made['train'] += train if limit is None else train[-limit:]
  return made


def _by_position(back, now):
  del now
  return {0: 'test', 1: 'val'}.get(back, 'train')


def _check_strictly_before(store, moments):
  shown = store.impressions or store.behaviors
  seen, target = store.behaviors.columns, shown.columns
  for user, end, row, _ in moments:
    own = range(store.behaviors.offsets[user], end)
    now = target['timestamp'][row]
    assert all(seen['timestamp'][index] < now for index in own)
    later = range(end, store.behaviors.offsets[user + 1])
    assert all(seen['timestamp'][index] >= now for index in later)


@hypothesis.given(
  _ROWS, st.integers(0, 30), st.integers(3, 6), st.integers(0, 9), st.data()
)
def test_leave_last(rows, min_events, first, more, data):
  positions = (first, first + more, data.draw(st.integers(1, 4)))
  store = stores.build(rows)
  config = stores.data_options(
    split='leave_last', min_events=min_events, train_positions=positions
  )
  made = _made(store, config)
  assert made == _slow_leave_last(store, config)
  for user, end, target, count in itertools.chain(*made.values()):
    own = store.behaviors.slice(user)
    assert own.start < end == target < own.stop and count == 1


def test_leave_last_as_published():
  # Users of 209 and of 210 events: 19 training moments, at 3, 8, .., 93.
  rows = [(0, i, 0, i) for i in range(209)] + [(1, i, 0, i) for i in range(210)]
  store = stores.build(rows)
  made = _made(store, stores.data_options(split='leave_last'))
  stop = 419
  assert [stop - target for _, _, target, _ in made['train']] == [
    *range(3, 94, 5)
  ]
  assert len(made['train']) == 19
  assert made['val'] == [(1, stop - 2, stop - 2, 1)]
  assert made['test'] == [(1, stop - 1, stop - 1, 1)]


@hypothesis.given(
  _ROWS,
  st.integers(0, 20),
  st.integers(0, 10),
  st.one_of(st.none(), st.integers(1, 6)),
)
def test_leave_last_session(rows, min_events, min_history, limit):
  store = stores.build(rows)
  config = stores.data_options(
    min_events=min_events, min_history=min_history, max_train_moments=limit
  )
  made = _made(store, config)
  assert made == _slow_sessions(store, config, _by_position)
  for moments in made.values():
    _check_strictly_before(store, moments)


@hypothesis.given(
  _ROWS,
  st.integers(0, 10),
  st.integers(-1, 12),
  st.integers(1, 6),
  st.one_of(st.none(), st.integers(1, 6)),
)
def test_by_time(rows, min_history, val_from, days, limit):
  store = stores.build(rows)
  config = stores.data_options(
    split='by_time',
    min_events=0,
    min_history=min_history,
    val_from=val_from,
    test_from=val_from + days,
    max_train_moments=limit,
  )

  def split_of(back, now):
    del back
    if now < val_from:
      return 'train'
    return 'val' if now < val_from + days else 'test'

  made = _made(store, config)
  assert made == _slow_sessions(store, config, split_of)
  for moments in made.values():
    _check_strictly_before(store, moments)


@hypothesis.given(
  _LABELLED_ROWS, st.integers(0, 5), st.integers(0, 6), st.integers(0, 3)
)
def test_impressions(rows, min_history, min_events, num_negatives):
  store = stores.build(rows, schema=_LABELLED)
  config = stores.data_options(
    min_history=min_history,
    min_events=min_events,
    num_negatives=num_negatives,
  )
  made = _made(store, config)
  assert made == _slow_sessions(store, config, _by_position)
  for moments in made.values():
    _check_strictly_before(store, moments)


@hypothesis.given(_LABELLED_ROWS, st.integers(0, 3))
def test_impressions_are_covered_exactly_once(rows, num_negatives):
  store = stores.build(rows, schema=_LABELLED)
  config = stores.data_options(
    min_history=0, min_events=0, num_negatives=num_negatives
  )
  covered = [
    row
    for _, _, target, count in itertools.chain(*_made(store, config).values())
    for row in range(target, target + count)
  ]
  assert sorted(covered) == list(range(len(rows)))


@pytest.mark.parametrize('name', splits.PROTOCOLS)
def test_an_empty_split_is_refused(name):
  store = stores.build([(0, 0, 0, time) for time in range(9)])
  data = stores.data_options(split=name, val_from=3, test_from=5)
  with pytest.raises(errors.UsageError) as caught:
    splits.make_splits(store, data)
  text = str(caught.value)
  assert 'leaves no moment for train, val, test' in text
  assert '0 of 1 users have' in text and 'data.min_events=210' in text
  assert 'the longest history has 9' in text and '\n' not in text


def test_leave_last_says_what_its_positions_need():
  rows = [(user, at, 0, at) for user in range(3) for at in range(50 + user)]
  data = stores.data_options(
    split='leave_last', min_events=20, train_positions=(3, 60, 5)
  )
  with pytest.raises(errors.UsageError) as caught:
    splits.make_splits(stores.build(rows), data)
  assert (
    '0 of 3 users have 61 behaviors, which data.train_positions=(3, 60, 5)'
    ' needs (the longest history has 52)'
  ) in str(caught.value)


@pytest.mark.parametrize(
  ('dates', 'message'),
  [
    ((None, 0, 5), 'for train: the log has no events to before 0;'),
    ((None, 3, 9), 'for test: the log has no events from 9;'),
    ((None, 90, 99), 'for val: the log has no events from 90 to before 99;'),
    ((-9, 0, 4), 'for train: the log has no events from -9 to before 0;'),
  ],
)
def test_dates_outside_the_log_are_named(dates, message):
  store = stores.build([(0, 0, 0, time) for time in range(9)])
  fields = dict(
    zip(('train_from', 'val_from', 'test_from'), dates, strict=True)
  )
  data = stores.data_options(split='by_time', min_events=1, **fields)
  with pytest.raises(errors.UsageError, match=message) as caught:
    splits.make_splits(store, data)
  assert 'its times are from 0 to 8' in str(caught.value)
  assert 'min_events' not in str(caught.value)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'split': 'leave_one'}, 'expected one of leave_last, leave_last_s'),
    ({'split': 'by_time'}, 'needs data.val_from and data.test_from'),
    (
      {'split': 'by_time', 'val_from': 5, 'test_from': 5},
      'data.val_from=5 must be before data.test_from=5',
    ),
    (
      {'split': 'leave_last', 'train_positions': (2, 93, 5)},
      'positions 1 and 2 from the end test and validate',
    ),
    (
      {'split': 'leave_last', 'train_positions': (3, 93, 0)},
      r'train_positions=\(3, 93, 0\)',
    ),
    (
      {'split': 'leave_last', 'train_positions': (9, 8, 1)},
      r'train_positions=\(9, 8, 1\)',
    ),
    (
      {'split': 'leave_last', 'train_positions': (3, 93)},
      r'train_positions=\(3, 93\): expected \(first, last, step\)',
    ),
    (
      {'split': 'leave_last', 'train_positions': ('3;93;5',)},
      r'train_positions=.*expected \(first, last, step\)',
    ),
  ],
)
def test_wrong_options_are_refused(changes, message):
  store = stores.build([(0, 0, 0, time) for time in range(9)])
  with pytest.raises(errors.UsageError, match=message):
    splits.make_splits(store, stores.data_options(**changes))


def test_leave_last_refuses_impressions():
  store = stores.build([(0, 0, 0, 0, 1)], schema=_LABELLED)
  with pytest.raises(errors.UsageError, match='labelled impressions'):
    splits.make_splits(store, stores.data_options(split='leave_last'))


def test_session_protocols_refuse_a_store_out_of_time_order():
  # Sessions of an unsorted log would show a history events after its target.
  schema = event_log.LogSchema(sort_by_time=False)
  ordered = [(0, 0, 0, 4), (0, 1, 0, 9), (1, 0, 0, 2), (1, 0, 0, 2)]
  data = stores.data_options(min_events=0, min_history=0)
  splits.PROTOCOLS[data.split](stores.build(ordered, schema=schema), data)
  store = stores.build([*ordered, (1, 3, 0, 1)], schema=schema)
  for name in ('leave_last_session', 'by_time'):
    data = dataclasses.replace(data, split=name, val_from=1, test_from=2)
    with pytest.raises(errors.UsageError, match='sort_by_time=True'):
      splits.make_splits(store, data)


def test_a_log_without_positive_labels_is_refused():
  store = stores.build(
    [(0, 0, 0, time, 0) for time in range(5)], schema=_LABELLED
  )
  data = stores.data_options(min_events=0, min_history=0)
  with pytest.raises(errors.UsageError, match='no row of the log has label 1'):
    splits.make_splits(store, data)


def test_take_keeps_the_columns_together():
  moments = splits.Moments(*(np.arange(5) * k for k in (1, 2, 3, 4)))
  assert _rows(moments.take(np.array([3, 1]))) == [(3, 6, 9, 12), (1, 2, 3, 4)]
