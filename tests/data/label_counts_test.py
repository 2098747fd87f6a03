"""Labels by split, counted without making a batch, equal those of batches."""

import pytest

from dare_jax.data import label_counts
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.logs import event_log
from tests.data import stores


def _rows(with_labels):
  """7 users, 9 sessions of 1 to 5 rows; the labels of a session differ."""
  for user in range(7):
    for time in range(9):
      for slot in range(1 + (user + time) % 5):
        item = (user * 5 + time * slot) % 20
        label = [int((user + time + slot) % 3 == 0)] if with_labels else []
        yield user, item, item % 3, time, *label


@pytest.mark.parametrize('with_labels', [False, True])
@pytest.mark.parametrize('is_grouped', [False, True])
@pytest.mark.parametrize('split', splits.NAMES)
def test_equals_the_targets_of_the_batches(split, is_grouped, with_labels):
  store = stores.build(
    _rows(with_labels), schema=event_log.LogSchema(has_labels=with_labels)
  )
  data = stores.data_options(
    min_events=2,
    min_history=1,
    history_length=8,
    num_negatives=2,
    group_candidates=is_grouped,
    unknown_rate=0.0,
  )
  moments = splits.make_splits(store, data)[split]
  made = pipeline.Pipeline(store, moments, split, data, seed=3)
  for size in (1, 2, 4, 5, made.num_examples):
    for drop_last in (False, True):
      positive = negative = rows = 0
      for item in made.eval_batches(size, drop_last):
        targets = item.batch.targets
        real = targets.weight > 0
        positive += int((real & (targets.label > 0.5)).sum())
        negative += int((real & (targets.label < 0.5)).sum())
        rows += size
      found = label_counts.count(
        store, moments, data, rows if drop_last else None
      )
      expected = label_counts.LabelCounts(positive, negative)
      assert found == expected and min(positive, negative) >= 0
      assert (found.one_class is None) == bool(positive and negative)


def test_one_class_in_words():
  assert label_counts.LabelCounts(3, 1).one_class is None
  assert label_counts.LabelCounts(0, 4).one_class == 'all 4 labels are 0'
  found = label_counts.LabelCounts(1234, 0).one_class
  assert found == 'all 1,234 labels are 1'
