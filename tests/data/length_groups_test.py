"""Batches of a few lengths: padding, order, shares, and what moments see."""

import collections
import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax.data import length_groups
from dare_jax.data import pipeline
from dare_jax.data import splits
from tests import tiny
from tests.data import stores

_LENGTH = 300


def _log():
  """Users with 20 to 400 events, most of them few."""
  rng = np.random.default_rng(3)
  rows = []
  for user in range(40):
    for now in range(int(20 + 380 * rng.random() ** 4)):
      item = int(rng.integers(90))
      rows.append((user, item, item % 7, now))
  return rows


_STORE = stores.build(_log())
_WHOLE = pipeline.Share()


def _make(per_window=1, split='train', share=_WHOLE, **changes):
  fields = {
    'min_events': 0,
    'min_history': 3,
    'history_length': _LENGTH,
    'max_padding': 0.2,
    'unknown_rate': 0.0,
    'exclude': 'none',
  }
  data = stores.data_options(**(fields | changes))
  moments = splits.make_splits(_STORE, data)[split]
  return pipeline.Pipeline(
    _STORE, moments, split, data, 1, per_window, pipeline.Layout(share)
  )


def _seen(batch):
  """Bag of what is known of each real moment: history, targets."""
  bag = collections.Counter()
  for row, moment in np.ndindex(batch.end.shape):
    weight = batch.targets.weight[row, moment]
    if not weight.any():
      continue
    end = int(batch.end[row, moment])
    start = 0 if batch.start is None else int(batch.start[row, moment])
    own = slice(max(start, 0), end)
    mask = batch.history.mask[row, own]
    assert mask[-1] and (np.diff(mask.astype(int)) >= 0).all()
    bag[
      (
        batch.history.ids['item'][row, own][mask].tobytes(),
        batch.targets.ids['item'][row, moment].tobytes(),
        weight.tobytes(),
      )
    ] += 1
  return bag


def _epoch(made, size, epoch=0):
  steps = int(made.steps_an_epoch(size))
  return [made.train_batch(epoch * steps + step, size) for step in range(steps)]


# The lengths.


def _slots(lengths, needed):
  return sum(min(n for n in lengths if n >= one) for one in needed)


@hypothesis.given(
  st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(2, 9)
)
def test_the_fewest_lengths_that_leave_little_padding(needed, tenths):
  share = tenths / 10
  made = length_groups.group(np.array(needed), share, shortest=1)
  lengths = made.lengths.tolist()
  assert lengths == sorted(set(lengths))
  candidates = sorted({min(-(-n // 8) * 8, max(needed)) for n in needed})
  assert set(lengths) <= set(candidates)
  enough = lambda chosen: (
    1 - sum(needed) / _slots(chosen, needed) <= share + 1e-9
  )
  assert enough(lengths) or lengths == candidates
  if len(lengths) > 1:
    for fewer in itertools.combinations(candidates[:-1], len(lengths) - 2):
      assert not enough([*fewer, candidates[-1]])


def test_long_lengths_have_few_values():
  made = length_groups.group(np.arange(1, 100_001), 0.05, shortest=1)
  spare = np.diff(made.lengths) / made.lengths[1:]
  assert len(made.lengths) < 120 and spare[10:].max() < 0.2
  assert made.lengths[-1] == 100_000


@hypothesis.given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 3))
def test_each_example_fits_and_comes_once(size, shortest, epoch):
  rng = np.random.default_rng(size)
  needed = rng.integers(1, 200, 150)
  made = length_groups.group(needed, 0.2, shortest)
  assert made.lengths.min() >= shortest
  places = made.shuffled(np.arange(150), seed=4, epoch=epoch)
  assert sorted(places.tolist()) == list(range(150))
  taken = []
  for number in range(-(-150 // size)):
    drawn = made.places(number, size, seed=5, epoch=epoch)
    own = places[drawn]
    assert needed[own].max() <= made.length_of(drawn.stop - 1)
    taken += own.tolist()
  assert sorted(taken) == list(range(150))


# The batches.


@pytest.mark.parametrize('per_window', [1, 6])
def test_no_more_than_a_quarter_is_padding(per_window):
  made = _make(per_window, max_padding=0.2)
  plain = _make(per_window, max_padding=None)
  shares, lengths = [], set()
  for one in (made, plain):
    masks = [b.history.mask for b in _epoch(one, 8 * per_window)]
    shares.append(1 - sum(m.sum() for m in masks) / sum(m.size for m in masks))
    lengths.add(tuple(sorted({m.shape[1] for m in masks})))
  assert shares[0] <= 0.25 < shares[1]
  assert [len(one) for one in sorted(lengths, key=len)][0] == 1
  assert max(map(len, lengths)) > 1


@pytest.mark.parametrize('per_window', [1, 6])
@pytest.mark.parametrize('is_grouped', [True, False])
def test_an_epoch_is_every_moment_once_with_all_that_it_sees(
  per_window, is_grouped
):
  if per_window > 1 and not is_grouped:
    return  # Refused.
  changes = {'group_candidates': is_grouped}
  made = _make(per_window, **changes)
  plain = _make(per_window, max_padding=None, **changes)
  everything = next(iter(plain.eval_batches(plain.num_examples))).batch
  orders = []
  for epoch in range(2):
    batches = _epoch(made, 50, epoch)
    seen = sum(map(_seen, batches), collections.Counter())
    assert seen == _seen(everything)
    orders.append([batch.history.mask.shape[1] for batch in batches])
  assert orders[0] != sorted(orders[0])  # Not the shortest first.
  assert orders[0] != orders[1]


def test_the_order_repeats_without_reshuffle():
  first, second = (_epoch(_make(reshuffle=False), 60, e) for e in (0, 1))
  tiny.assert_same_bits(first, second)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.integers(1, 200), st.integers(0, 90))
def test_a_batch_depends_on_seed_and_step_alone(size, step):
  # So a run resumes at any step by asking for it.
  made = _make(6, unknown_rate=0.05)
  made.train_batch(step + 5, size)
  again = _make(6, unknown_rate=0.05)
  tiny.assert_same_bits(
    made.train_batch(step, size), again.train_batch(step, size)
  )


@pytest.mark.parametrize('size', [6, 42, 100])
def test_shares_make_up_the_whole_batch(size):
  whole = _make(6)
  parts = [_make(6, share=pipeline.Share(p, 2, 4)) for p in (0, 1)]
  for step in range(int(whole.steps_an_epoch(size))):
    expected = whole.train_batch(step, size)
    own = [part.train_batch(step, size) for part in parts]
    assert len({batch.history.mask.shape for batch in own}) == 1
    assert own[0].history.mask.shape[1] == expected.history.mask.shape[1]
    rows = own[0].end.shape[0] + own[1].end.shape[0]
    assert rows % 4 == 0 and rows - len(expected.end) < 4
    assert sum(map(_seen, own), collections.Counter()) == _seen(expected)


@pytest.mark.parametrize('size', [7, 64, 500])
@pytest.mark.parametrize('devices', [1, 4])
def test_places_of_evaluation_restore_the_order(size, devices):
  share = pipeline.Share(0, 1, devices)
  made = _make(split='test', share=share)
  plain = _make(split='test', max_padding=None)
  batches = [b.batch.targets.ids['item'] for b in made.eval_batches(size)]
  places = made.eval_places(size)
  assert plain.eval_places(size) is None
  expected = next(iter(plain.eval_batches(plain.num_examples))).batch
  np.testing.assert_array_equal(
    np.concatenate(batches)[places], expected.targets.ids['item']
  )
