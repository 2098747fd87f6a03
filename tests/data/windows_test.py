"""Windows of several moments against a window for each moment."""

import collections

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import types
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.data import windows
from dare_jax.experiments import config_check
from dare_jax.experiments import experiment
from dare_jax.logs import event_log
from tests import tiny
from tests.data import stores
from tests.models import examples

_PAGED = event_log.LogSchema(fields=('shop',), context_fields=('page',))
_LABELLED = event_log.LogSchema(
  fields=('shop',), context_fields=('page',), has_labels=True
)
_LENGTH = 7


def _rows(has_labels):
  """Users of 1 to 60 events, several at a time, with shop and page."""
  rng = np.random.default_rng(3)
  rows = []
  for user in range(10):
    for _ in range(int(rng.choice([1, 4, 20, 60]))):
      item = int(40 * rng.random() ** 2)
      row = (user, item, item % 4, int(rng.integers(18)), item % 3)
      row = (*row, int(rng.integers(5)))
      rows.append((*row, int(rng.random() < 0.5)) if has_labels else row)
  return rows


_STORES = {
  'purchases': stores.build(_rows(False), schema=_PAGED),
  'impressions': stores.build(_rows(True), schema=_LABELLED),
}


def _make(per_window, name='purchases', seed=1, **changes):
  defaults = {
    'min_events': 0,
    'min_history': 1,
    'history_length': _LENGTH,
    'unknown_rate': 0.0,
    'exclude': 'positive_only',
  }
  data = stores.data_options(**(defaults | changes))
  moments = splits.make_splits(_STORES[name], data)['train']
  return pipeline.Pipeline(
    _STORES[name], moments, 'train', data, seed, per_window
  )


def _seen(batch, row, moment):
  """Each field's ids that a moment sees, the most recent first."""
  length = batch.history.mask.shape[1]
  end = int(batch.end[row, moment])
  start = 0 if batch.start is None else int(batch.start[row, moment])
  assert 0 <= start < end <= length
  own = [i for i in range(start, end) if batch.history.mask[row, i]][::-1]
  assert own == list(range(end - 1, end - 1 - len(own), -1))
  return [ids[row, own].tolist() for ids in jax.tree.leaves(batch.history.ids)]


def _by_moment(batch):
  """Bag of all that is known of each real moment."""
  bag = collections.Counter()
  targets = batch.targets
  parts = (targets.ids, targets.label, targets.weight, batch.context)
  for row, moment in np.ndindex(batch.end.shape):
    if targets.weight[row, moment].any():
      values = [part[row, moment].tolist() for part in jax.tree.leaves(parts)]
      bag[repr((_seen(batch, row, moment), values))] += 1
  return bag


def _all(made, epoch=0):
  """The examples of an epoch as one batch."""
  return made.train_batch(epoch, _batch_size(made))


def _batch_size(made):
  """The moments that as many windows as there are have room for."""
  size = made.num_examples
  while made.examples_a_step(size) < made.num_examples:
    size += 1
  return size


# Grouping.


@hypothesis.given(stores.logs(), st.integers(1, 12), st.integers(0, 30))
def test_each_moment_is_in_one_window_of_its_user(rows, size, limit):
  rng = np.random.default_rng(len(rows))
  user = np.array([row[0] for row in rows], np.int32)
  end = 100 * user.astype(np.int64) + rng.integers(0, 100, len(user))
  # In any order: `leave_last` lists a user's moments backwards.
  moments = splits.Moments(user, end, end, np.ones_like(user))
  made = windows.group(moments, size, limit)
  assert made.slack <= limit
  number, real = made.moments(np.arange(len(made)))
  assert number.shape == real.shape == (len(made), size)
  assert sorted(number[real].tolist()) == list(range(len(moments)))
  user, end = moments.user[number], moments.end[number]
  assert (user == user[:, :1]).all()
  assert (np.diff(end, axis=1) >= 0).all()
  assert (end[:, -1] - end[:, 0] <= made.slack).all()
  # No window could have taken the first moment of the next.
  for one, other in zip(range(len(made)), range(1, len(made)), strict=False):
    is_full = real[one].all()
    is_far = end[other, 0] - end[one, 0] > made.slack
    assert is_full or is_far or user[one, 0] != user[other, 0]


def test_the_slack_is_enough_for_most_windows():
  end = np.arange(0, 4000, 5)
  user = np.repeat(np.arange(4), 200).astype(np.int32)
  moments = splits.Moments(user, end, end, np.ones(len(end), np.int32))
  made = windows.group(moments, 10, 500)
  assert made.slack == 48  # Ten moments five apart: 45, made a multiple of 8.
  assert made.moments(np.arange(len(made)))[1].all()
  cut = windows.group(moments, 10, 24)
  assert cut.slack == 24
  assert (cut.moments(np.arange(len(cut)))[1].sum(axis=1) == 5).all()


# What a moment sees.


@pytest.mark.parametrize('name', _STORES)
@pytest.mark.parametrize('per_window', [2, 5, 19])
@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'split': 'leave_last', 'train_positions': (3, 15, 3)},
    {'fresh_negatives': True, 'reshuffle': False},
    {'num_negatives': 5, 'max_train_moments': 8},
  ],
)
def test_moments_are_those_of_plain_batches(name, per_window, changes):
  if name == 'impressions' and 'split' in changes:
    return  # Refused: these targets are not behaviors.
  plain, shared = _make(1, name, **changes), _make(per_window, name, **changes)
  assert shared.num_examples < plain.num_examples
  for epoch in range(2):
    expected = _by_moment(_all(plain, epoch))
    assert _by_moment(_all(shared, epoch)) == expected
    assert sum(expected.values()) == plain.num_examples


@pytest.mark.parametrize('name', _STORES)
def test_arrays_of_a_window(name):
  made = _make(4, name, unknown_rate=0.3)
  batch = made.train_batch(0, 20)
  length = batch.history.mask.shape[1]
  assert _LENGTH < length <= 2 * _LENGTH
  assert batch.targets.label.shape == (5, 4, 3)
  assert batch.end.shape == batch.start.shape == batch.context['page'].shape
  ids = [*batch.history.ids.values(), *batch.targets.ids.values()]
  for array in (*ids, batch.end, batch.start, *batch.context.values()):
    assert array.dtype == np.int32
  np.testing.assert_array_equal(batch.end - batch.start, _LENGTH)
  assert (batch.end.max(axis=1) == length).all()
  assert (batch.history.ids['item'][~batch.history.mask] == 0).all()


def test_padding_has_weight_zero_and_is_counted_out():
  made = _make(19)
  batch = _all(made)
  weight = batch.targets.weight
  assert (weight.sum(axis=(1, 2)) > 0).all() and (weight == 0).any()
  moments = _make(1).num_examples
  assert weight.sum() == 3 * moments
  assert made.targets_per_example == 3 * moments / made.num_examples


def test_unknown_items_of_targets_are_those_of_plain_batches():
  changes = {'unknown_rate': 0.2, 'reshuffle': False}
  plain, shared = (_all(_make(size, **changes)) for size in (1, 6))
  bags = []
  for batch in (plain, shared):
    real = batch.targets.weight[..., 0] > 0
    ids = batch.targets.ids['item'][real]
    bags.append(sorted(map(tuple, ids.tolist())))
    seen = batch.history.ids['item'][batch.history.mask]
    assert 0.05 < (seen == 1).mean() < 0.3
    assert 0.05 < (ids == 1).mean() < 0.3
  assert bags[0] == bags[1]


def _eval(made):
  return [batch.batch for batch in made.eval_batches(16)]


def test_evaluation_keeps_a_window_for_each_moment(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(tmp_path, train__moments_per_window=4)
  opened = experiment.load(made)
  assert _eval(opened.pipelines['val'])[0].end.shape == (16, 1)


# Which windows a batch holds.


@hypothesis.given(st.integers(1, 200), st.integers(0, 60))
def test_a_batch_depends_on_seed_and_step_alone(size, step):
  made = _make(6, unknown_rate=0.05)
  made.train_batch(step + 3, size)
  again = _make(6, unknown_rate=0.05)
  tiny.assert_same_bits(
    made.train_batch(step, size), again.train_batch(step, size)
  )


def test_epochs_are_shuffled():
  made = _make(6)
  first, second = _all(made, 0), _all(made, 1)
  assert _by_moment(first) == _by_moment(second)
  assert not np.array_equal(
    first.history.ids['item'], second.history.ids['item']
  )
  other = _all(_make(6, seed=2), 0)
  assert not np.array_equal(
    first.history.ids['item'], other.history.ids['item']
  )


@pytest.mark.parametrize(
  'size, windows_a_step', [(683, 36), (684, 36), (1, 1), (29, 2), (9, 1)]
)
def test_batch_size_counts_moments(size, windows_a_step):
  made = _make(19)
  assert made.examples_a_step(size) == windows_a_step
  assert made.train_batch(0, size).end.shape == (windows_a_step, 19)


def test_an_epoch_is_every_moment_once(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(tmp_path, train__moments_per_window=4, train__epochs=1.0)
  made.train.steps = None
  opened = experiment.load(made)
  train = opened.pipelines['train']
  weight = sum(
    train.train_batch(step, 32).targets.weight.sum()
    for step in range(opened.total_steps - 1)
  )
  total = round(train.num_examples * train.targets_per_example)
  assert total - 3 * 32 <= weight <= total
  assert opened.steps_per_epoch == train.num_examples / 8


# The model.


def _row(batch, row, moment):
  """One moment with a window of its own, cut out of a shared one."""
  start, end = batch.start[row, moment], batch.end[row, moment]
  history = jax.tree.map(lambda a: a[row : row + 1, start:end], batch.history)
  targets, context = jax.tree.map(
    lambda a: a[row : row + 1, moment : moment + 1],
    (batch.targets, batch.context),
  )
  return types.Batch(history, np.full((1, 1), _LENGTH), targets, context)


@pytest.mark.parametrize('name', ['dare', 'twin'])
def test_logits_are_those_of_plain_batches(name):
  store = _STORES['purchases']
  model = examples.build(
    name,
    vocab_sizes={field: store.vocab_sizes[field] for field in store.fields},
    context={'page': store.vocab_sizes['page']},
  )
  batch = _all(_make(5))
  rows = [
    _row(batch, row, moment)
    for row, moment in np.ndindex(batch.end.shape)
    if batch.targets.weight[row, moment].any()
  ]
  plain = jax.device_put(jax.tree.map(lambda *a: np.concatenate(a), *rows))
  real = batch.targets.weight.any(axis=-1)
  shared = jax.device_put(batch)
  variables = examples.make_variables(model, plain)
  # The plain batch is what the pipeline makes: same bag, so same moments.
  host = jax.tree.map(np.asarray, plain)
  assert _by_moment(host) == _by_moment(_all(_make(1)))
  got, expected = (
    jax.device_get(examples.outputs(model, variables, part))
    for part in (shared, plain)
  )
  np.testing.assert_allclose(
    got[0].logits[real], expected[0].logits[:, 0], rtol=1e-5, atol=1e-5
  )
  for kind in ('logits', 'aux_logits'):
    one, other = (getattr(trained, kind) for _, trained in (got, expected))
    np.testing.assert_allclose(one[real], other[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_with_windows_trains_and_resumes(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(
    tmp_path, train__moments_per_window=4, data__max_padding=0.05
  )
  train = experiment.load(made).pipelines['train']
  masks = [train.train_batch(step, 32).history.mask for step in range(8)]
  assert len({mask.shape for mask in masks}) > 1
  result = tiny.run(made, tmp_path / 'straight')
  assert result['steps'] == 8
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path / 'cut', tiny.StopAtCheck(6))
  tiny.run(made, tmp_path / 'cut')
  tiny.assert_same_run(made, tmp_path / 'straight', tmp_path / 'cut')


# Wrong options.


@pytest.mark.parametrize('size', [0, -2])
def test_windows_without_moments_are_refused(tmp_path, size):
  made = tiny.config(tmp_path, train__moments_per_window=size)
  with pytest.raises(errors.UsageError) as caught:
    config_check.check(made)
  assert str(caught.value) == (
    f'train.moments_per_window={size}: expected 1 or more.'
  )


def test_single_targets_in_windows_are_refused(tmp_path):
  made = tiny.config(
    tmp_path, train__moments_per_window=2, data__group_candidates=False
  )
  with pytest.raises(errors.UsageError) as caught:
    config_check.check(made)
  assert str(caught.value) == (
    'train.moments_per_window=2 needs data.group_candidates=True: single'
    ' targets do not share a window.'
  )
