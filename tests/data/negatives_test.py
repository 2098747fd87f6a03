"""Negatives against a slow twin, and the odds that they promise."""

import collections

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.data import counter_rng
from dare_jax.data import negatives
from tests.data import stores

_ROWS = stores.random_rows(seed=3, users=8, low=5, high=20, items=60)
_STORE = stores.build(_ROWS)
_ITEMS = _STORE.behaviors.columns['item_id']


_FEW_ITEMS = stores.build(
  stores.random_rows(seed=4, users=9, low=2, high=8, items=4)
)
_TIMES = _STORE.behaviors.columns['timestamp']


def _log(user, before=None):
  own = _STORE.behaviors.slice(user)
  is_early = np.ones(len(_ITEMS), bool) if before is None else _TIMES < before
  return set(_ITEMS[own][is_early[own]].tolist())


def _draw(sampler, stream, example, user, positive):
  """The items of the rows that the sampler drew."""
  rows = sampler.sample(
    stream,
    np.asarray(example, np.int64),
    np.asarray(user, np.int32),
    np.asarray(positive, np.int32),
  )
  assert rows.dtype == np.int64
  return _ITEMS[rows]


def _slow_draw(stream, example, slot, user, positive, exclude, before):
  own = _log(user, before)
  taken = {'user_log': own, 'positive_only': {positive}, 'none': set()}
  rows = [
    row
    for row, time in enumerate(_TIMES.tolist())
    if before is None or time < before
  ]
  turn = 0
  while True:
    row = rows[counter_rng.below(len(rows), *stream, example, slot, turn)]
    if int(_ITEMS[row]) not in taken[exclude]:
      return int(_ITEMS[row])
    turn += 1


@hypothesis.given(
  st.sampled_from(negatives.EXCLUDE),
  st.integers(1, 4),
  st.lists(
    st.tuples(st.integers(0, 2**50), st.integers(0, 7)),
    min_size=1,
    max_size=12,
  ),
  st.integers(0, 99),
  st.integers(0, 11),
  st.sampled_from([None, 5, 12, 29, 30]),  # Times are from 0 to 29.
)
def test_draws_follow_the_definition(exclude, number, pairs, seed, cut, before):
  sampler = negatives.NegativeSampler(_STORE, number, exclude, before)
  example, user = (np.array(column) for column in zip(*pairs, strict=True))
  positive = _ITEMS[_STORE.behaviors.offsets[user]]
  stream = (seed, 2)
  expected = [
    [
      _slow_draw(stream, e, slot, u, p, exclude, before)
      for slot in range(number)
    ]
    for e, u, p in zip(
      example.tolist(), user.tolist(), positive.tolist(), strict=True
    )
  ]
  drawn = _draw(sampler, stream, example, user, positive)
  assert drawn.tolist() == expected
  # How the examples are cut into batches changes nothing.
  for part in (slice(cut), slice(cut, None)):
    if len(example[part]):
      again = _draw(sampler, stream, example[part], user[part], positive[part])
      assert again.tolist() == expected[part]


@pytest.mark.parametrize('exclude', negatives.EXCLUDE)
def test_only_what_is_excluded_is_never_drawn(exclude):
  size = 8000
  example, user = np.arange(size), np.arange(size) % _STORE.num_users
  positive = _ITEMS[_STORE.behaviors.offsets[user]]
  sampler = negatives.NegativeSampler(_STORE, 2, exclude)
  drawn = _draw(sampler, (1, 0), example, user, positive)
  is_own = np.array(
    [
      [item in _log(u) for item in row]
      for u, row in zip(user, drawn, strict=True)
    ]
  )
  is_positive = drawn == positive[:, None]
  assert is_own.any() == (exclude != 'user_log')
  assert is_positive.any() == (exclude == 'none')


@pytest.mark.parametrize('exclude', negatives.EXCLUDE)
def test_odds_are_the_frequencies_of_what_is_left(exclude):
  size, user = 20_000, 5
  positive = int(_ITEMS[_STORE.behaviors.offsets[user]])
  sampler = negatives.NegativeSampler(_STORE, 2, exclude)
  drawn = _draw(
    sampler, (9, 1), np.arange(size), [user] * size, [positive] * size
  )
  taken = {'user_log': _log(user), 'positive_only': {positive}, 'none': set()}
  frequency = collections.Counter(
    item for item in _ITEMS.tolist() if item not in taken[exclude]
  )
  count = collections.Counter(drawn.ravel().tolist())
  assert set(count) <= set(frequency)
  total = sum(frequency.values())
  expected = np.array([2 * size * n / total for n in frequency.values()])
  seen = np.array([count[item] for item in frequency])
  degrees = len(frequency) - 1
  # Six standard deviations above the mean of chi-square.
  bound = degrees + 6 * np.sqrt(2 * degrees)
  assert ((seen - expected) ** 2 / expected).sum() < bound


@pytest.mark.parametrize('other', [(8, 0), (7, 1), (7, 0, 5)])
def test_streams_differ(other):
  sampler = negatives.NegativeSampler(_STORE, 2, 'none')
  arguments = (np.arange(500), [0] * 500, [0] * 500)
  first = _draw(sampler, (7, 0), *arguments)
  np.testing.assert_array_equal(first, _draw(sampler, (7, 0), *arguments))
  # The most popular items meet by chance, but in far fewer than half.
  assert (first == _draw(sampler, other, *arguments)).mean() < 0.5


def test_an_impossible_case_is_refused(tmp_path):
  rows = [('a', 0, 0, 0), ('a', 1, 0, 1), ('b', 0, 0, 0)]
  store = stores.build(rows, tmp_path / 'both')
  zero, item = np.zeros(1, np.int64), np.array([2], np.int32)
  for exclude, log, hint in (
    ('user_log', store, 'data.exclude=positive_only'),
    (
      'positive_only',
      stores.build(rows[2:], tmp_path / 'one'),
      'data.exclude=none',
    ),
  ):
    sampler = negatives.NegativeSampler(log, 2, exclude)
    name = log.raw_ids('user')[0]
    with pytest.raises(errors.UsageError, match=f'set {hint}') as caught:
      sampler.sample((0, 0), zero, zero, item)
    assert '\n' not in str(caught.value)
    assert f"no negative for user '{name}': " in str(caught.value)
    with pytest.raises(errors.UsageError, match=f'set {hint}') as caught:
      sampler.check('test', zero, item)
    assert f"no negative for user '{name}' of the test sp" in str(caught.value)
  # User b lacks item 1 (dense 3): all draws must be it.
  sampler = negatives.NegativeSampler(store, 3, 'user_log')
  sampler.check('test', zero + 1, item)
  rows = sampler.sample((0, 0), zero, zero + 1, item)
  assert set(store.behaviors.columns['item_id'][rows].ravel()) == {3}


def test_the_check_tells_what_a_draw_would():
  """For every user and every positive, under each rule, at each time."""
  refused = 0
  for exclude in negatives.EXCLUDE:
    for before in (None, *range(1, 9)):
      store = _FEW_ITEMS
      sampler = negatives.NegativeSampler(store, 1, exclude, before)
      for user in range(store.num_users):
        own = store.behaviors.slice(user)
        for item in set(store.behaviors.columns['item_id'][own].tolist()):
          pair = np.array([user]), np.array([item])
          try:
            sampler.sample((0, 0), np.zeros(1, np.int64), *pair)
            is_possible = True
          except errors.UsageError:
            is_possible = False
          if is_possible:
            sampler.check('val', *pair)
          else:
            refused += 1
            with pytest.raises(errors.UsageError):
              sampler.check('val', *pair)
  assert refused > 10


def test_a_rare_choice_is_found_and_has_its_odds(tmp_path):
  """User a has all but 2 items of 3 rows in 30,000: 200 draws miss them."""
  rows = [('a', 0, 0, time) for time in range(30_000)]
  rows += [('b', 1, 0, 0), ('b', 2, 0, 1), ('c', 2, 0, 0)]
  store = stores.build(rows, tmp_path / 'store')
  sampler = negatives.NegativeSampler(store, 1, 'user_log')
  zeros = np.zeros(3000, np.int64)
  drawn = sampler.sample((0, 0), np.arange(3000), zeros, zeros + 2)
  assert len(np.unique(drawn)) == 3  # Each of the rows.
  items = store.behaviors.columns['item_id'][drawn].ravel()
  assert set(items) == {3, 4}
  np.testing.assert_allclose((items == 4).mean(), 2 / 3, atol=0.04)


def test_only_rows_before_a_time_are_drawn_and_reject(tmp_path):
  """What comes later is neither a negative nor kept from being one."""
  rows = [(u, item, 0, time) for time, item in ((1, 10), (2, 11)) for u in 'ab']
  store = stores.build([*rows, ('a', 12, 0, 3), ('b', 13, 0, 3)])
  sampler = negatives.NegativeSampler(store, 50, 'positive_only', before=3)
  zero = np.zeros(1, np.int64)
  items = store.behaviors.columns['item_id']
  assert set(items[sampler.sample((0, 0), zero, zero, zero)].flat) == {2, 3}
  whole = negatives.NegativeSampler(store, 50, 'user_log', before=4)
  assert set(items[whole.sample((0, 0), zero, zero, zero)].flat) == {5}
  # A user's first purchase of an item after `before` says nothing yet.
  rows = [('a', 1, 0, 1), ('b', 2, 0, 1), ('a', 2, 0, 5)]
  store = stores.build(rows, tmp_path / 'store')
  early = negatives.NegativeSampler(store, 9, 'user_log', before=5)
  drawn = early.sample((0, 0), zero, zero, zero)
  assert set(store.behaviors.columns['item_id'][drawn].flat) == {3}
  late = negatives.NegativeSampler(store, 9, 'user_log', before=6)
  with pytest.raises(errors.UsageError, match='items from before 6; set'):
    late.sample((0, 0), zero, zero, zero)


def test_an_unknown_rule_is_refused():
  with pytest.raises(errors.UsageError, match='user_log, positive_only, none'):
    negatives.NegativeSampler(_STORE, 2, 'all')


@hypothesis.given(
  st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=40
  ),
  st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), max_size=20),
)
def test_in_user_log_is_membership(pairs, asked):
  store = stores.build([(user, item, 0, 0) for user, item in pairs])
  table = store.behaviors
  user = np.array([u % store.num_users for u, _ in asked], np.int32)
  item = np.array([i for _, i in asked], np.int32)
  expected = [
    i in table.columns['item_id'][table.slice(u)]
    for u, i in zip(user, item, strict=True)
  ]
  assert negatives.in_user_log(table, user, item).tolist() == expected
