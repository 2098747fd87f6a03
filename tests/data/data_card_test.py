"""The data card states what was read, dropped and kept."""

from __future__ import annotations

import re

import pytest

from dare_jax.data import data_card
from dare_jax.data import options as data_options
from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from tests.data import stores


@pytest.fixture
def taobao(data, write):
  rows = [
    f'{user},{event % 7 + 1},{event % 3 + 1},pv,{1_511_600_000 + event}'
    for user in range(1, 5)
    for event in range(10 * user)
  ]
  rows.insert(3, 'x,1,1,pv,1511600000')
  rows.append('1,9,1,buy,1511600000')
  data.name = 'taobao'
  data.input = write('UserBehavior.csv', '\n'.join(rows) + '\n')
  data.max_malformed_share = 0.1
  data.min_events, data.min_history = 20, 5
  return data


def _card(data):
  store = datasets.prepare(log_options.of_section(data))
  text = data_card.data_card(store, data_options.of_section(data))
  lines = text.split('\n')
  return text, dict(re.split(r':\s+', line, maxsplit=1) for line in lines)


def test_card_counts_rows_and_sizes(taobao):
  text, card = _card(taobao)
  assert card['rows read'] == '102'
  assert card['rows kept'] == '100'
  assert '1 (0.980%), malformed' in text
  assert '1 (0.980%), type other than pv' in text
  assert "line 4: 'x,1,1,pv,1511600000'" in card['malformed']
  assert (card['users'], card['items'], card['categories']) == ('4', '7', '3')
  assert card['behaviors'] == '100'
  assert card['behaviors a user'] == (
    'min 10, 10 % 10, 50 % 20, 90 % 30, 99 % 30, max 40'
  )
  assert card['time range'].startswith(
    '2017-11-25 08:53:20 to 2017-11-25 08:53:59 UTC'
  )


def test_card_counts_moments(taobao):
  # Every event is a session; users of 20, 30, 40 events have enough, and each
  # leaves its last event to test, the one before to val.
  _, card = _card(taobao)
  assert card['train moments'] == '69 of 3 users'
  assert card['val moments'] == '3 of 3 users'
  assert card['test moments'] == '3 of 3 users'
  # Seven items and three categories come up all the time.
  assert card['ids not in training'] == (
    'item 0 of 7, category 0 of 3; read as the unknown id'
  )


def test_card_counts_ids_that_training_does_not_read(data, write):
  """Ten users with nine events in common; the last one or two are new."""
  rows = ['user_id,item_id,category_id,timestamp']
  for user in range(10):
    rows += [f'{user},{event},0,{event}' for event in range(8)]
    rows += [
      f'{user},{100 + user % 2},{user % 4},8',
      f'{user},{200 + user},0,9',
    ]
  rows += [f'x,{event},0,{event}' for event in range(3)]
  data.name, data.input = 'csv_log', write('log.csv', '\n'.join(rows) + '\n')
  data.split, data.min_events, data.min_history = 'leave_last_session', 10, 3
  data.exclude, data.num_negatives = 'positive_only', 1
  _, card = _card(data)
  assert card['ids not in training'] == (
    'item 12 of 20, category 3 of 4; read as the unknown id'
  )
  # Of the ten users, 0, 4 and 8 have a known category in validation.
  item, category = (
    re.search(rf'{field} (\S+)% and (\S+)%', card['unknown in val']).groups()
    for field in ('item', 'category')
  )
  assert (float(item[0]), float(category[0])) == (100, 70)
  assert 0 <= float(item[1]) < 100
  assert 'item 100.00% and' in card['unknown in test']
  assert 'category 0.00% and ' in card['unknown in test']
  data.unknown_rate = 0.0
  _, card = _card(data)
  assert card['unknown ids'].startswith('none: data.unknown_rate=0')


def test_card_of_a_log_without_moments_still_prints(taobao):
  taobao.min_events = 1_000
  text, card = _card(taobao)
  assert card['moments'].startswith('none: data.split=leave_last_session')
  assert 'fingerprint' in card and 'train moments' not in text


def _time_lines(rows):
  store = stores.build(rows)
  found = dict(data_card._size_lines(store))
  return found['time range:'], found['time unit:']


def test_units_of_numbers_are_judged_by_their_size():
  at = lambda *times: [(0, 0, 0, time) for time in times]
  unknown = "not known: the log's numbers"
  assert _time_lines(at(3, 900)) == ('3 to 900', unknown)
  assert _time_lines(at(0, 1_511_600_000_000, 1_511_600_000_001)) == (
    '1970-01-01 00:00:00 to 2017-11-25 08:53:20.001 UTC (0 to 1511600000001)',
    'milliseconds since 1970, UTC, judging by their size',
  )
  early = at(-2_134_949_234, 1_511_600_000, 1_511_600_000)
  assert _time_lines(early)[0].startswith('1902-')
  mixed = at(1_511_600_000, 1_511_600_000_000, 1_511_600_000_000)
  assert _time_lines(mixed)[1] == unknown


def _notes_of_times(rows, split='leave_last_session'):
  lines = list(data_card._distinct_times(stores.build(rows), split))
  assert lines[0][0] == 'times a user:'
  return lines[0][1], [text for name, text in lines if name == 'note:']


def test_few_times_and_whole_days_are_noted():
  day, start = 86_400, 1_714_521_600
  days = [(0, n, 0, start + n // 4 * day) for n in range(80)]
  told, notes = _notes_of_times(days)
  assert told == 'median 20 distinct, of 80 behaviors'
  assert notes[0].startswith('times are whole days: all that a user does')
  assert 'data.split=leave_last' in notes[0]
  _, (note,) = _notes_of_times(days, 'leave_last')
  assert note.startswith('times are whole days: the history of a target ends')
  assert 'data.split=' not in note
  told, notes = _notes_of_times([(0, n, 0, n // 40) for n in range(80)])
  assert told == 'median 2 distinct, of 80 behaviors'
  assert notes[0].startswith('users have few times: ')
  for step in (3_600, day + 1):
    rows = [(0, n, 0, start + n * step) for n in range(80)]
    assert _notes_of_times(rows)[1] == []
  assert _notes_of_times([(0, n, 0, start) for n in range(3)])[1]


def test_card_counts_repeated_rows(data, write):
  data.name = 'csv_log'
  rows = ['u,i1,c,5', 'u,i2,c,5', 'u,i1,d,5', 'v,i1,c,5', 'u,i1,c,6']
  data.input = write('log.csv', '\n'.join(['u,i,c,t', *rows, 'u,i1,c,5', '']))
  columns = data.columns
  columns.user, columns.item, columns.category = 'u', 'i', 'c'
  columns.time = 't'
  _, card = _card(data)
  assert card['repeated rows'].startswith('2 (33.333%) with the user, item and')
  assert card['behaviors'] == '6'
  data.input = write('log.csv', '\n'.join(['u,i,c,t', *rows[:2], '']))
  assert 'repeated rows' not in _card(data)[1]


def test_card_counts_impressions_and_fields(data, write):
  data.name = 'csv_log'
  rows = [f'u,i{n % 5},c,{n},s{n % 2},{n % 2}' for n in range(30)]
  data.input = write('log.csv', 'u,i,c,t,shop,y\n' + '\n'.join(rows) + '\n')
  columns = data.columns
  columns.user, columns.item, columns.category = 'u', 'i', 'c'
  columns.time, columns.fields, columns.label = 't', ('shop',), 'y'
  _, card = _card(data)
  assert card['impressions'] == '30, 15 with label 1'
  assert card['behaviors'] == '15'
  assert card['shop'] == '2'
  assert card['time range'] == '1 to 29'
