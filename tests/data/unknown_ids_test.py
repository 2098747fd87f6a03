"""Ids that become the unknown one: at random, and those training lacks."""

import collections

import numpy as np
import pytest

from dare_jax.data import counter_rng
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.logs import event_log
from tests import tiny
from tests.data import stores

_SCHEMA = event_log.LogSchema(
  fields=('shop',), context_fields=('page',), has_labels=True
)


def _labelled_rows():
  """Per user and time: up to 7 impressions with shop, page and label."""
  rng = np.random.default_rng(8)
  for user in range(6):
    for now in range(9):
      for _ in range(rng.integers(1, 8)):
        item = int(rng.integers(30))
        label = int(rng.random() < 0.5)
        yield user, item, item % 4, now, item % 3, now % 5, label


_STORE = stores.build(_labelled_rows(), schema=_SCHEMA)


def _make(split='train', seed=1, store=_STORE, known=None, **changes):
  defaults = {
    'min_events': 0,
    'min_history': 3,
    'history_length': 7,
    'unknown_rate': 0.0,
  }
  data = stores.data_options(**(defaults | changes))
  moments = splits.make_splits(store, data)[split]
  return pipeline.Pipeline(store, moments, split, data, seed, known=known)


@pytest.mark.parametrize('rate', [0.001, 0.02, 0.3])
@pytest.mark.parametrize('is_grouped', [True, False])
def test_a_share_of_training_ids_is_made_unknown(rate, is_grouped):
  """In each field, in histories, targets and context."""
  length = 12
  changes = {'group_candidates': is_grouped, 'history_length': length}
  plain = _make(**changes)
  made = _make(unknown_rate=rate, **changes)
  replaced = collections.Counter()
  size = collections.Counter()
  for step in range(60):
    expected, got = plain.train_batch(step, 200), made.train_batch(step, 200)
    np.testing.assert_array_equal(got.history.mask, expected.history.mask)
    for part in ('history', 'targets', 'context'):
      want, have = (
        getattr(getattr(batch, part), 'ids', batch.context)
        for batch in (expected, got)
      )
      assert set(want) == set(have)
      for field, ids in have.items():
        changed = ids != want[field]
        assert (ids[changed] == 1).all() and (want[field][changed] > 1).all()
        replaced[part, field] += int(changed.sum())
        size[part, field] += int((want[field] > 0).sum())
  assert len(size) == 3 + 3 + 1
  for (part, field), number in size.items():
    # Slots are drawn with replacement: of k draws on 12 slots, some meet.
    draws = rate * length if part == 'history' else rate
    share = 1 - (1 - 1 / length) ** draws if part == 'history' else rate
    error = 6 * np.sqrt(rate * number)  # Six standard deviations and more.
    count = replaced[part, field]
    assert share * number - error <= count <= rate * number + error, field


def test_fields_are_made_unknown_apart():
  made, plain = (
    _make(unknown_rate=rate).train_batch(0, 3000) for rate in (0.3, 0.0)
  )
  for part in ('history', 'targets'):
    want, have = getattr(plain, part).ids, getattr(made, part).ids
    real = want['item'] > 0
    hits = [(have[field] != want[field])[real] for field in want]
    for number, first in enumerate(hits):
      for second in hits[:number]:
        together = (first & second).mean()
        apart = first.mean() * second.mean()
        assert abs(together - apart) < 6 * np.sqrt(apart / real.sum())


def test_which_items_are_made_unknown_stays_as_it_was():
  """What other fields are there moves no draw of the items."""
  made = _make(unknown_rate=0.3).train_batch(0, 3)
  items = made.history.ids['item']
  plain = _make().train_batch(0, 3).history
  stream = counter_rng.UNKNOWN + 8  # Seed 1.
  index = counter_rng.permute(np.arange(3), _make().num_examples, 8 + 2, 0)
  expected = plain.ids['item'].copy()
  for row, number in enumerate(index.tolist()):
    count = int(0.3 * 7 + counter_rng.uniform(stream, 0, number))
    for turn in range(count):
      slot = int(counter_rng.below(7, stream, 0, number, turn))
      if plain.mask[row, slot]:
        expected[row, slot] = 1
  np.testing.assert_array_equal(items, expected)


@pytest.mark.parametrize('split', ['val', 'test'])
def test_nothing_is_made_unknown_in_evaluation(split):
  plain, made = _make(split), _make(split, unknown_rate=0.5)
  for first, second in zip(
    plain.eval_batches(30), made.eval_batches(30), strict=True
  ):
    tiny.assert_same_bits(first.batch, second.batch)
