import re

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.logs import raw_log
from tests.data import stores

_ROWS = stores.logs()


def _decoded(log):
  """user -> its (item, category, time) rows in raw values, users in order."""
  users = {}
  raw = {name: values.to_list() for name, values in log.raw_ids.items()}
  for user in range(log.num_users):
    rows = range(log.offsets[user], log.offsets[user + 1])
    users[raw['user'][user]] = [
      (
        raw['item'][log.columns['item_id'][row] - 2],
        raw['category'][log.columns['category_id'][row] - 2],
        int(log.columns['timestamp'][row]),
      )
      for row in rows
    ]
  return users


def _slow(rows, sort_by_time):
  users = {}
  for user, *event in rows:
    users.setdefault(user, []).append(tuple(event))
  if sort_by_time:
    for events in users.values():
      events.sort(key=lambda event: event[2])  # Stable.
  return users


@hypothesis.given(_ROWS, st.booleans(), st.integers(0, 40))
def test_groups_by_user_in_stable_time_order(rows, sort_by_time, cut):
  schema = event_log.LogSchema(sort_by_time=sort_by_time)
  blocks = [
    stores.frame(part, schema) for part in (rows[:cut], rows[cut:]) if part
  ]
  report = raw_log.RowReport()
  log = event_log.encode(blocks, schema, report)
  expected = _slow(rows, sort_by_time)
  assert list(_decoded(log)) == list(expected)  # Users by first appearance.
  assert _decoded(log) == expected
  assert report.rows_kept == len(rows)
  assert log.columns['item_id'].dtype == np.int32
  assert log.columns['timestamp'].dtype == np.int64


@hypothesis.given(_ROWS)
def test_session_shuffle_keeps_sessions_and_repeats(rows):
  schema = event_log.LogSchema(shuffle_sessions=True)
  log = stores.encode(rows, schema)
  for name, column in stores.encode(rows, schema).columns.items():
    np.testing.assert_array_equal(log.columns[name], column)
  key = lambda event: (event[2], event)
  for user, events in _slow(rows, True).items():
    got = _decoded(log)[user]
    assert [event[2] for event in got] == [event[2] for event in events]
    assert sorted(got, key=key) == sorted(events, key=key)


def test_session_shuffle_forgets_the_order_of_the_file():
  rows = [(0, item, 0, 5) for item in range(300)]
  log = stores.encode(rows, event_log.LogSchema(shuffle_sessions=True))
  order = log.columns['item_id'].astype(float)
  # 6 standard errors of a rank correlation of independent orders.
  assert abs(np.corrcoef(order, np.arange(300))[0, 1]) < 6 / np.sqrt(299)


def test_far_apart_times_are_ordered():
  rows = [(0, 0, 0, 2**62), (0, 1, 0, -(2**62) - 1)]
  log = stores.encode(rows)
  assert log.columns['timestamp'].tolist() == [-(2**62) - 1, 2**62]


def test_further_fields_context_and_labels():
  schema = event_log.LogSchema(
    fields=('shop',), context_fields=('page',), has_labels=True
  )
  rows = [('a', 1, 2, 9, 'x', 'p', 0), ('a', 1, 2, 3, 'y', 'p', 1)]
  log = stores.encode(rows, schema)
  assert log.columns['shop_id'].tolist() == [3, 2]
  assert log.columns['page_id'].tolist() == [2, 2]
  assert log.columns['label'].tolist() == [1, 0]
  assert log.columns['label'].dtype == np.int8
  assert log.raw_ids['shop'].to_list() == ['x', 'y']


def test_items_with_several_categories_are_noted():
  log = stores.encode([(0, 1, 1, 0), (0, 1, 2, 1), (0, 2, 2, 2)])
  assert log.report.notes[0].startswith('1 item occurs with several')
  assert not stores.encode([(0, 1, 1, 0), (0, 1, 1, 1)]).report.notes


def test_an_empty_log_is_refused():
  empty = stores.frame([(0, 0, 0, 0)]).clear()
  for blocks in ([], [empty]):
    with pytest.raises(errors.UsageError, match='no usable rows'):
      event_log.encode(blocks, event_log.LogSchema(), raw_log.RowReport())


def test_shuffling_sessions_of_an_unsorted_log_is_refused():
  with pytest.raises(ValueError, match='sort_by_time'):
    event_log.LogSchema(sort_by_time=False, shuffle_sessions=True)


@pytest.mark.parametrize(
  ('times', 'notes'),
  [
    ([0, 1, 29], []),
    ([0, -5, 1_511_600_000], ['1 row has time 0']),
    ([1_511_600_000, 1_600_000_000], []),
    ([1_511_600_000_000, 1_600_000_000_000], []),
    (
      [0, 0, 1_511_600_000, 1_511_600_000_000, 1_511_600_000_001],
      ['mixed: 1 row like seconds, 2 rows like milli', '2 rows have time 0'],
    ),
    ([1_511_600_000_000, 10**15, 10**18], ['milli.*1 .*micro.*1 .*nano']),
  ],
)
def test_notes_of_times_in_several_units(times, notes):
  schema = event_log.LogSchema()
  report = raw_log.RowReport()
  rows = [(0, 0, 0, time) for time in times]
  event_log.encode([stores.frame(rows, schema)], schema, report)
  assert len(report.notes) == len(notes)
  for note, expected in zip(report.notes, notes, strict=True):
    assert re.search(expected, note)
