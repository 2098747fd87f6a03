"""Where a split gives no moments, one that does is named, with its counts."""

from __future__ import annotations

import ast
import re

import hypothesis
from hypothesis import strategies as st
import pytest

from dare_jax import errors
from dare_jax.data import splits
from dare_jax.logs import event_log
from tests.data import stores

_DAY = 86_400
_START = 1_714_521_600  # 2024-05-01


def _message(store, **fields):
  data = stores.data_options(**fields)
  with pytest.raises(errors.UsageError) as caught:
    splits.make_splits(store, data)
  return str(caught.value)


def _offered(text):
  """Returns the flags of a message and the counts that it promises."""
  flags = dict(re.findall(r'--config\.data\.(\w+)=(\S+)', text))
  counts = re.search(r'give ([\d,]+) train, ([\d,]+) val, ([\d,]+) test', text)
  assert counts, text
  numbers = [int(count.replace(',', '')) for count in counts.groups()]
  return flags, dict(zip(('train', 'val', 'test'), numbers, strict=True))


def _value(text):
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _check_offer(store, **fields):
  """Takes up an offer; returns its flags once they keep what they promise."""
  flags, counts = _offered(_message(store, **fields))
  changes = {field: _value(text) for field, text in flags.items()}
  made = splits.make_splits(store, stores.data_options(**fields | changes))
  assert {name: len(moments) for name, moments in made.items()} == counts
  return flags


def _daily(users, days, each, labels=False):
  return [
    (user, (user * 31 + day * 7 + at) % 50, 0, _START + day * _DAY)
    + ((at % 2,) if labels else ())
    for user in range(users)
    for day in range(days)
    for at in range(each)
  ]


def test_a_log_of_days_is_offered_the_order_of_the_log():
  store = stores.build(_daily(users=5, days=2, each=30))
  fields = {'split': 'leave_last_session', 'min_events': 20, 'min_history': 10}
  text = _message(store, **fields)
  assert 'leaves no moment for train, val: 5 of 5 users' in text
  assert 'Half of the users have at most 2 distinct times' in text
  assert text.endswith('order of the log where times are equal.')
  assert _check_offer(store, **fields) == {
    'split': 'leave_last',
    'train_positions': '3,59,5',
  }


def test_short_histories_are_offered_lower_limits():
  rows = [(user, at, 0, at) for user in range(6) for at in range(12)]
  store = stores.build(rows)
  fields = {'split': 'leave_last_session'}
  assert 'distinct' not in _message(store, **fields)
  flags = _check_offer(store, **fields)
  assert flags == {'min_events': '12', 'min_history': '3'}


def test_dates_outside_the_log_are_offered_others():
  store = stores.build(_daily(users=9, days=20, each=2))
  fields = {'min_events': 5, 'min_history': 2, 'split': 'by_time'}
  flags = _check_offer(
    store, train_from=5, val_from='2025-01-01', test_from='2025-02-01', **fields
  )
  assert flags == {
    'train_from': 'None',
    'val_from': '2024-05-17',
    'test_from': '2024-05-19',
  }


def test_impressions_are_never_offered_leave_last():
  schema = event_log.LogSchema(has_labels=True)
  store = stores.build(_daily(9, days=9, each=4, labels=True), schema=schema)
  fields = {'split': 'by_time', 'val_from': 5, 'test_from': 6}
  flags = _check_offer(store, min_events=9, min_history=2, **fields)
  assert 'split' not in flags


def test_nothing_is_offered_where_nothing_helps():
  store = stores.build([(user, 1, 0, 5) for user in range(4)])
  text = _message(store, split='leave_last_session')
  assert '--config' not in text
  assert text.endswith('lower these, or check the log.')


@hypothesis.given(
  rows=stores.logs(),
  split=st.sampled_from(['leave_last', 'leave_last_session', 'by_time']),
)
def test_offers_keep_what_they_promise(rows, split):
  store = stores.build(rows)
  fields = {'split': split, 'val_from': 100, 'test_from': 200}
  if 'would give' in _message(store, **fields):
    _check_offer(store, **fields)
