"""Batches against a slow twin that makes one example at a time."""

import collections

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.logs import event_log
from tests.data import stores

_STORE = stores.build(
  stores.random_rows(seed=5, users=12, low=6, high=40, items=80)
)
_LABELLED = event_log.LogSchema(
  fields=('shop',), context_fields=('page',), has_labels=True
)


def _labelled_rows():
  """Per user and time: up to 7 impressions with shop, page and label."""
  rng = np.random.default_rng(8)
  rows = []
  for user in range(6):
    for now in range(9):
      for _ in range(rng.integers(1, 8)):
        item = int(rng.integers(30))
        label = int(rng.random() < 0.5)
        rows.append((user, item, item % 4, now, item % 3, now % 5, label))
  return rows


_IMPRESSIONS = stores.build(_labelled_rows(), schema=_LABELLED)


def _data(**changes):
  """Short histories, all users, nothing made unknown."""
  defaults = {
    'min_events': 0,
    'min_history': 3,
    'history_length': 7,
    'unknown_rate': 0.0,
  }
  return stores.data_options(**(defaults | changes))


def _make(split='train', seed=1, store=_STORE, **changes):
  data = _data(**changes)
  moments = splits.make_splits(store, data)[split]
  return pipeline.Pipeline(store, moments, split, data, seed)


def _moments(store=_STORE, split='train', **changes):
  return splits.make_splits(store, _data(**changes))[split]


def _rows(batch):
  """Each example of a batch as nested tuples, comparable and hashable."""
  parts = [
    *(batch.history.ids[field] for field in sorted(batch.history.ids)),
    batch.history.mask,
    batch.end,
    *(batch.targets.ids[field] for field in sorted(batch.targets.ids)),
    batch.targets.label,
    batch.targets.weight,
    *(batch.context[field] for field in sorted(batch.context)),
  ]
  count = len(batch.history.mask)
  return [tuple(part[i].tobytes() for part in parts) for i in range(count)]


def _stream(made, size, start, stop):
  """Examples at the positions start..stop - 1, read in batches of `size`."""
  steps = range(start // size, -(-stop // size))
  rows = [row for step in steps for row in _rows(made.train_batch(step, size))]
  return rows[start % size :][: stop - start]


def _check_history(store, batch, row, user, end, length):
  """The history of a row is a Python slice of the user's events."""
  events = stores.events_of(store.behaviors, user)
  seen = [event for event in events if event['row'] < end][-length:]
  padding = length - len(seen)
  mask = batch.history.mask[row]
  assert mask.tolist() == [False] * padding + [True] * len(seen)
  for field in store.fields:
    expected = [0] * padding + [event[f'{field}_id'] for event in seen]
    assert batch.history.ids[field][row].tolist() == expected
  assert batch.end[row].tolist() == [length]


# What a batch holds.


@hypothesis.given(st.integers(1, 50), st.integers(1, 40), st.booleans())
def test_eval_batches_hold_what_the_log_says(length, size, is_grouped):
  changes = {'history_length': length, 'group_candidates': is_grouped}
  made = _make('test', **changes)
  moments = _moments(split='test', **changes)
  per_moment = 1 if is_grouped else 3
  columns = _STORE.behaviors.columns
  number = 0
  for batch in made.eval_batches(size):
    targets = batch.batch.targets
    assert batch.batch.history.mask.shape == (size, length)
    assert targets.weight.shape == (size, 1, 3 // per_moment)
    for row in range(size):
      if number == made.num_examples:
        assert not targets.weight[row].any()  # Padding of the last batch.
        continue
      assert targets.weight[row].all()
      moment, slot = divmod(number, per_moment)
      user, end = int(moments.user[moment]), int(moments.end[moment])
      _check_history(_STORE, batch.batch, row, user, end, length)
      label = [1, 0, 0] if is_grouped else [int(slot == 0)]
      assert targets.label[row, 0].tolist() == label
      item = targets.ids['item'][row, 0]
      category = targets.ids['category'][row, 0]
      if label[0]:
        target = moments.target[moment]
        assert item[0] == columns['item_id'][target]
        assert category[0] == columns['category_id'][target]
      own = set(columns['item_id'][_STORE.behaviors.slice(user)].tolist())
      for column in range(len(label)):
        if not label[column]:
          assert item[column] not in own
          value = _STORE.item_values['category'][item[column]]
          assert category[column] == value
      assert (batch.user[row] == user).all()
      for field, flags in batch.seen.items():
        positive = int(columns[f'{field}_id'][moments.target[moment]])
        expected = positive in batch.batch.history.ids[field][row]
        assert flags[row, 0] == expected
      number += 1
  assert number == made.num_examples == len(moments) * per_moment


@pytest.mark.parametrize('split', splits.NAMES)
def test_arrays_have_the_types_of_the_glossary(split):
  made = _make(split, unknown_rate=0.5)
  batch = next(iter(made.eval_batches(4))).batch
  if split == 'train':
    batch = made.train_batch(0, 4)
  ids = [*batch.history.ids.values(), *batch.targets.ids.values(), batch.end]
  assert {array.dtype for array in ids} == {np.dtype(np.int32)}
  assert batch.history.mask.dtype == bool
  assert batch.targets.label.dtype == batch.targets.weight.dtype == np.float32


def test_grouped_and_single_rows_agree():
  grouped, single = _make(), _make(group_candidates=False)
  assert grouped.num_examples * 3 == single.num_examples
  assert (grouped.targets_per_example, single.targets_per_example) == (3, 1)
  bags = []
  for made in (grouped, single):
    batch = made.train_batch(0, made.num_examples)
    history = batch.history.ids['item']
    bag = collections.Counter()
    for row, column in np.ndindex(len(history), made.targets_per_example):
      targets = [*sorted(batch.targets.ids.items())]
      values = [int(array[row, 0, column]) for _, array in targets]
      label = float(batch.targets.label[row, 0, column])
      bag[(history[row].tobytes(), *values, label)] += 1
    bags.append(bag)
  assert bags[0] == bags[1]


def test_an_unknown_item_as_a_negative_keeps_the_category_of_its_row():
  # Else "category unknown" would give negatives away: no positive has it.
  rows = stores.random_rows(seed=2, users=9, low=9, high=20, items=400)
  store = stores.build(rows, min_item_count=3)
  made = _make('test', store=store, exclude='none')
  item, category = [], []
  for batch in made.eval_batches(64):
    item.append(batch.batch.targets.ids['item'][:, 0, 1:].ravel())
    category.append(batch.batch.targets.ids['category'][:, 0, 1:].ravel())
  of_unknown = np.concatenate(category)[np.concatenate(item) == 1]
  assert len(of_unknown) > 5 and of_unknown.min() > 1
  assert len(np.unique(of_unknown)) > 1


# Which examples a batch holds.


@pytest.mark.parametrize('exclude', ['user_log', 'positive_only', 'none'])
def test_by_time_trains_on_nothing_of_the_future(exclude):
  """Items, and values of old items, that are new in each part of the log."""
  rows = [
    (user, item, f'kind {time // 10}', time)
    for time in range(30)
    for user in range(6)
    for item in (user + time % 2, 100 * (time // 10 + 1) + user + time % 3)
  ]
  store = stores.build(rows)
  table = store.behaviors.columns
  data = _data(split='by_time', val_from=10, test_from=20, exclude=exclude)
  moments = splits.make_splits(store, data)
  for name, stop in (('train', 10), ('val', 20)):
    made = pipeline.Pipeline(store, moments[name], name, data, seed=1)
    known = {
      field: set(table[f'{field}_id'][table['timestamp'] < stop].tolist())
      for field in store.fields
    }
    batches = [part.batch for part in made.eval_batches(50)]
    for field in store.fields:
      seen = {
        int(value)
        for batch in batches
        for ids in (batch.targets.ids[field], batch.history.ids[field])
        for value in ids.flat
      }
      assert seen - {0} <= known[field], (name, field)


@pytest.mark.parametrize('is_grouped', [True, False])
@pytest.mark.quick_cases('True')
@hypothesis.given(st.integers(1, 60), st.integers(0, 500))
def test_examples_depend_on_the_position_alone(is_grouped, size, start):
  made = _make(group_candidates=is_grouped, unknown_rate=0.05)
  stop = start + 75
  assert _stream(made, size, start, stop) == _stream(made, 1, start, stop)


@pytest.mark.parametrize('is_grouped', [True, False])
@pytest.mark.parametrize('reshuffle', [True, False])
def test_every_epoch_holds_every_example_once(is_grouped, reshuffle):
  made = _make(group_candidates=is_grouped, reshuffle=reshuffle)
  size = made.num_examples
  in_order = [
    row for batch in made.eval_batches(size) for row in _rows(batch.batch)
  ]
  expected = collections.Counter(in_order)
  epochs = [_stream(made, 11, k * size, (k + 1) * size) for k in range(3)]
  for epoch in epochs:
    assert collections.Counter(epoch) == expected
    assert epoch != in_order
  assert (epochs[0] == epochs[1] == epochs[2]) == (not reshuffle)
  assert (epochs[1] == epochs[2]) == (not reshuffle)


@pytest.mark.parametrize('is_grouped', [True, False])
@hypothesis.given(st.integers(1, 90))
def test_evaluation_covers_every_row_once_whatever_the_batch(is_grouped, size):
  made = _make('val', group_candidates=is_grouped)
  rows, weight = [], 0.0
  for batch in made.eval_batches(size):
    targets = batch.batch.targets
    real = targets.weight[:, 0, 0] > 0
    weight += targets.weight.sum()
    rows += [
      r for r, keep in zip(_rows(batch.batch), real, strict=True) if keep
    ]
  whole = next(iter(made.eval_batches(made.num_examples)))
  assert rows == _rows(whole.batch)
  assert weight == 3 * len(_moments(split='val'))


def test_two_seeds_differ_and_one_repeats():
  rows = {
    seed: _stream(_make(seed=seed, unknown_rate=0.01), 50, 0, 150)
    for seed in (0, 1, 2)
  }
  for seed, first in rows.items():
    again = _make(seed=seed, unknown_rate=0.01)
    assert _stream(again, 50, 0, 150) == first
    for other, second in rows.items():
      assert (seed == other) == (sorted(first) == sorted(second))


@pytest.mark.parametrize('split', ['val', 'test'])
def test_all_seeds_are_tested_on_the_same_rows(split):
  first, second = (
    [_rows(batch.batch) for batch in _make(split, seed).eval_batches(20)]
    for seed in (1, 2)
  )
  assert first == second


@pytest.mark.parametrize('is_fresh', [True, False])
def test_fresh_negatives_change_by_epoch_and_others_do_not(is_fresh):
  made = _make(fresh_negatives=is_fresh, reshuffle=False)
  size = made.num_examples
  first, second = (
    made.train_batch(k, size).targets.ids['item'] for k in (0, 1)
  )
  np.testing.assert_array_equal(first[..., 0], second[..., 0])  # Positives.
  share = (first[..., 1:] == second[..., 1:]).mean()
  # Popular items meet by chance, but in far fewer than half.
  assert share < 0.5 if is_fresh else share == 1


# Logged impressions and context.


@pytest.mark.parametrize('number', [0, 1, 2, 3])
@pytest.mark.parametrize('is_grouped', [True, False])
@pytest.mark.parametrize('split', splits.NAMES)
def test_logged_impressions_are_the_targets(number, is_grouped, split):
  changes = {'num_negatives': number, 'group_candidates': is_grouped}
  made = _make(split, store=_IMPRESSIONS, **changes)
  moments = _moments(_IMPRESSIONS, split, num_negatives=number)
  table = _IMPRESSIONS.impressions
  fields = (*_IMPRESSIONS.fields, 'label')
  expected, seen = collections.Counter(), collections.Counter()
  for user, end, first, count in zip(
    moments.user, moments.end, moments.target, moments.count, strict=True
  ):
    for row in range(first, first + count):
      names = [name if name == 'label' else f'{name}_id' for name in fields]
      values = [int(table.columns[name][row]) for name in names]
      page = int(table.columns['page_id'][row])
      history = _IMPRESSIONS.behaviors.columns['item_id']
      start = max(_IMPRESSIONS.behaviors.offsets[user], end - 7)
      key = tuple(history[start:end].tolist())
      expected[(int(user), key, *values, page)] += 1
  for batch in made.eval_batches(16):
    targets, history = batch.batch.targets, batch.batch.history
    values = [targets.ids[field] for field in _IMPRESSIONS.fields]
    for row, column in np.ndindex(16, made.targets_per_example):
      index = (row, 0, column)
      if targets.weight[index] == 0:
        continue
      assert targets.weight[index] == 1
      seen[
        (
          int(batch.user[index]),
          tuple(history.ids['item'][row][history.mask[row]].tolist()),
          *(int(value[index]) for value in values),
          int(targets.label[index]),
          int(batch.batch.context['page'][row, 0]),
        )
      ] += 1
  assert seen == expected
  assert sum(seen.values()) == moments.count.sum()


@pytest.mark.parametrize('is_grouped', [True, False])
def test_context_and_further_fields_of_a_log_without_labels(is_grouped):
  schema = event_log.LogSchema(fields=('shop',), context_fields=('page',))
  rows = [
    (user, item, item % 4, now, item % 3, now % 5)
    for user in range(4)
    for now in range(12)
    for item in [(7 * now + 3 * user) % 19]
  ]
  store = stores.build(rows, schema=schema)
  made = _make('test', store=store, group_candidates=is_grouped)
  moments = _moments(store, 'test')
  columns = store.behaviors.columns
  batch = next(iter(made.eval_batches(made.num_examples))).batch
  assert set(batch.context) == {'page'}
  assert set(batch.history.ids) == {'item', 'category', 'shop'}
  repeats = 1 if is_grouped else 3
  page = columns['page_id'][np.repeat(moments.target, repeats)]
  np.testing.assert_array_equal(batch.context['page'], page[:, None])
  # The shop is a function of the item here: of positives and negatives.
  items, shops = batch.targets.ids['item'], batch.targets.ids['shop']
  np.testing.assert_array_equal(store.item_values['shop'][items], shops)


# Wrong options.


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'history_length': 0}, 'data.history_length=0: expected 1 or more'),
    ({'num_negatives': 0}, 'data.num_negatives=0: expected 1 or more'),
    ({'exclude': 'all'}, "data.exclude='all': expected one of"),
  ],
)
def test_wrong_options_are_refused(changes, message):
  with pytest.raises(errors.UsageError, match=message):
    _make(**changes)
