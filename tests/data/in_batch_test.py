"""In-batch negatives: which, for whom, with what correction."""

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.data import pipeline
from dare_jax.data import splits
from tests.data import pipeline_test
from tests.data import stores

_STORE = stores.build(
  stores.random_rows(seed=5, users=12, low=6, high=40, items=80)
)
_COUNT, _SIZE = 3, 8
_WHOLE = pipeline.Share()


def _make(split='train', share=_WHOLE, shared=1, **changes):
  defaults = {
    'min_events': 0,
    'min_history': 3,
    'history_length': 7,
    'unknown_rate': 0.0,
    'in_batch_negatives': _COUNT,
  }
  data = stores.data_options(**(defaults | changes))
  moments = splits.make_splits(_STORE, data)[split]
  layout = pipeline.Layout(share)
  return pipeline.Pipeline(_STORE, moments, split, data, 1, shared, layout)


def _users(made, step):
  """The user of each moment of a batch."""
  index, _, real, _ = made._examples(step, *_rows_of(made))
  row, _ = made._rows_of(index, real)
  return made.moments.user[row]


def _rows_of(made):
  rows = made.examples_a_step(_SIZE)
  return rows, np.arange(rows)


@pytest.mark.parametrize('shared', [1, 3])
@pytest.mark.parametrize('exclude', ['user_log', 'positive_only', 'none'])
def test_they_are_positives_of_others_and_none_of_the_users_own(
  exclude, shared
):
  made = _make(exclude=exclude, shared=shared)
  table = _STORE.behaviors
  found = 0
  for step in range(6):
    targets = made.train_batch(step, _SIZE).targets
    users = _users(made, step)
    real = targets.weight[..., 0] > 0
    positive = targets.ids['item'][..., 0]
    positives = {
      (int(user), int(item))
      for user, item in zip(users[real], positive[real], strict=True)
    }
    mask = targets.contrast.mask
    assert not mask[..., :-_COUNT].any() and not mask[~real].any()
    assert not targets.weight[..., -_COUNT:].any()
    assert not targets.label[..., -_COUNT:].any()
    empty = real[..., None] & ~mask[..., -_COUNT:]
    assert not targets.ids['item'][..., -_COUNT:][empty].any()
    for place in np.argwhere(mask):
      user = int(users[tuple(place[:2])])
      item = int(targets.ids['item'][tuple(place)])
      assert any(item == other for _, other in positives)
      assert (user, item) not in positives
      if exclude == 'user_log':
        rows = slice(table.offsets[user], table.offsets[user + 1])
        assert item not in table.columns['item_id'][rows]
      found += 1
  assert found > 60


def test_the_rest_of_a_batch_and_other_splits_are_as_without_them():
  with_them, without = _make(), _make(in_batch_negatives=0)
  wide, plain = (made.train_batch(2, _SIZE) for made in (with_them, without))
  assert plain.targets.contrast is None
  for field, ids in plain.targets.ids.items():
    np.testing.assert_array_equal(wide.targets.ids[field][..., :3], ids)
  np.testing.assert_array_equal(
    wide.targets.label[..., :3], plain.targets.label
  )
  np.testing.assert_array_equal(wide.end, plain.end)
  [first, *_] = _make('val').eval_batches(_SIZE)
  [other, *_] = _make('val', in_batch_negatives=0).eval_batches(_SIZE)
  assert first.batch.targets.contrast is None
  assert pipeline_test._rows(first.batch) == pipeline_test._rows(other.batch)


def test_a_batch_depends_on_its_step_alone_whoever_makes_it():
  whole = _make(shared=2)
  parts = [_make(share=pipeline.Share(i, 2, 2), shared=2) for i in range(2)]
  for step in (3, 0):  # A run that is resumed starts anywhere.
    batch = whole.train_batch(step, _SIZE).targets
    made = [part.train_batch(step, _SIZE).targets for part in parts]
    for field, ids in batch.ids.items():
      halves = [part.ids[field] for part in made]
      np.testing.assert_array_equal(np.concatenate(halves), ids)
    halves = [part.contrast.log_ratio for part in made]
    np.testing.assert_array_equal(
      np.concatenate(halves), batch.contrast.log_ratio
    )


def test_the_correction_is_the_ratio_of_two_shares():
  made = _make()
  items = _STORE.behaviors.columns['item_id']
  positives = items[made.moments.target]
  targets = made.train_batch(0, _SIZE).targets
  mask = targets.contrast.mask
  assert not targets.contrast.log_ratio[~mask].any()
  for place in np.argwhere(mask):
    item = targets.ids['item'][tuple(place)]
    drawn, sampled = np.mean(positives == item), np.mean(items == item)
    np.testing.assert_allclose(
      targets.contrast.log_ratio[tuple(place)],
      np.log(drawn / sampled),
      rtol=1e-5,
      atol=1e-6,
    )


def test_a_log_with_labels_is_refused():
  data = pipeline_test._data(in_batch_negatives=1)
  store = pipeline_test._IMPRESSIONS
  moments = splits.make_splits(store, data)['train']
  with pytest.raises(errors.UsageError, match='in_batch_negatives=1 is for'):
    pipeline.Pipeline(store, moments, 'train', data, 1)
