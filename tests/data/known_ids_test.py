"""What training knows, against the batches that it reads."""

import numpy as np
import pytest

from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.data.ids import known_ids
from dare_jax.data.ids import unknown_ids
from dare_jax.logs import event_log
from tests.data import stores

_PROTOCOLS = {
  'leave_last': {'train_positions': (3, 9, 2)},
  'leave_last_session': {'max_train_moments': 4},
  'by_time': {'val_from': 20, 'test_from': 25},
  'by_time, of late': {'val_from': 20, 'test_from': 25, 'train_from': 14},
}


def _rows(has_labels):
  """Ids of all fields come and go with time, and some with the user."""
  rng = np.random.default_rng(4)
  for user in range(9):
    for now in range(30):
      for slot in range(rng.integers(1, 3)):
        item = 10 * (now // 3) + int(rng.integers(8)) + 200 * (slot * user == 3)
        kind, shop, page = (now + 1) // 3, (now + 1) // 5, (now + 1) // 6
        label = int(slot == 0 or rng.random() < 0.3)
        rest = (label,) if has_labels else ()
        yield (user, item, kind, now, shop, page, *rest)


def _schema(has_labels):
  return event_log.LogSchema(
    fields=('shop',), context_fields=('page',), has_labels=has_labels
  )


_STORES = {
  has_labels: stores.build(_rows(has_labels), schema=_schema(has_labels))
  for has_labels in (False, True)
}
_CASES = [
  (protocol, has_labels, per_window)
  for protocol in _PROTOCOLS
  for has_labels in (False, True)
  for per_window in (1, 4)
  if not (has_labels and protocol == 'leave_last')  # Refused.
]


def _data(protocol, **changes):
  return stores.data_options(
    split=protocol.split(',')[0],
    min_events=0,
    min_history=3,
    history_length=6,
    exclude='positive_only',
    **(_PROTOCOLS[protocol] | changes),
  )


def _train_batches(store, moments, data, per_window, known=None):
  made = pipeline.Pipeline(
    store, moments['train'], 'train', data, 1, per_window, known=known
  )
  steps = -(-made.num_examples // 10)
  return [made.train_batch(step, 10 * per_window) for step in range(steps)]


def _read_by(store, batches):
  """Field -> ids that the moments of batches see, one moment at a time."""
  read = {field: set() for field in (*store.fields, *store.context_fields)}
  for batch in batches:
    for row, moment in np.ndindex(batch.end.shape):
      weight = batch.targets.weight[row, moment]
      if not weight.any():
        continue
      end = batch.end[row, moment]
      start = 0 if batch.start is None else max(0, batch.start[row, moment])
      is_seen = batch.history.mask[row, start:end]
      is_read = weight > 0
      if store.impressions is None:
        is_read &= batch.targets.label[row, moment] > 0
      for field in store.fields:
        history = batch.history.ids[field][row, start:end][is_seen]
        targets = batch.targets.ids[field][row, moment][is_read]
        read[field] |= {*history.tolist(), *targets.tolist()}
      for field in store.context_fields:
        read[field].add(int(batch.context[field][row, moment]))
  return read


@pytest.mark.parametrize(('protocol', 'has_labels', 'per_window'), _CASES)
def test_known_is_what_training_reads(
  protocol, has_labels, per_window, monkeypatch
):
  monkeypatch.setattr(known_ids, '_BLOCK', 37)  # Several blocks, one partial.
  store = _STORES[has_labels]
  data = _data(protocol, unknown_rate=0.0)
  moments = splits.make_splits(store, data)
  known = known_ids.of_training(store, moments['train'], data)
  read = _read_by(store, _train_batches(store, moments, data, per_window))
  assert known.keys() == read.keys()
  for field, flags in known.items():
    assert flags.dtype == bool and len(flags) == store.vocab_sizes[field]
    assert set(np.flatnonzero(flags).tolist()) == read[field] | {0, 1}
    assert not flags.all()  # Else the case would show nothing.


@pytest.mark.parametrize(('protocol', 'has_labels', 'per_window'), _CASES)
@pytest.mark.parametrize('is_grouped', [True, False])
def test_no_other_id_is_read_in_any_split(
  protocol, has_labels, per_window, is_grouped
):
  store = _STORES[has_labels]
  data = _data(protocol, group_candidates=is_grouped or per_window > 1)
  moments = splits.make_splits(store, data)
  known = known_ids.of_training(store, moments['train'], data)
  batches = _train_batches(store, moments, data, per_window, known)
  for split in ('val', 'test'):
    made = pipeline.Pipeline(store, moments[split], split, data, 1, known=known)
    for item in made.eval_batches(10):
      batches.append(item.batch)
      for part in ('history', 'targets'):
        for field in store.fields:
          stored, read = (
            getattr(batch, part).ids[field]
            for batch in (item.stored, item.batch)
          )
          expected = unknown_ids.as_known(stored, known[field])
          np.testing.assert_array_equal(read, expected)
  unknown = dict.fromkeys(known, 0)
  for batch in batches:
    for ids in (batch.history.ids, batch.targets.ids, batch.context):
      for field, array in ids.items():
        assert array.dtype == np.int32
        assert known[field][array].all()
        unknown[field] += int((array == 1).sum())
  assert all(unknown.values())


def test_a_training_negative_is_an_item_that_training_knows():
  """Else the unknown item would be learned to be never wanted."""
  store = _STORES[False]
  data = _data('leave_last_session', num_negatives=20)
  moments = splits.make_splits(store, data)
  known = known_ids.of_training(store, moments['train'], data)
  for split in ('train', 'test'):
    made = pipeline.Pipeline(store, moments[split], split, data, 1, known=known)
    items = np.concatenate(
      [item.stored.targets.ids['item'] for item in made.eval_batches(50)]
    )
    negatives = items[..., 1:]
    assert known['item'][negatives].all() == (split == 'train')


def test_without_a_rate_every_id_keeps_its_row():
  """As in the published recipe, which has no unknown id."""
  store = _STORES[False]
  data = _data('leave_last', unknown_rate=0.0, group_candidates=False)
  moments = splits.make_splits(store, data)
  known = known_ids.of_training(store, moments['train'], data)
  for split in splits.NAMES:
    plain, made = (
      pipeline.Pipeline(store, moments[split], split, data, 1, known=given)
      for given in (None, known)
    )
    for one, other in zip(
      plain.eval_batches(20), made.eval_batches(20), strict=True
    ):
      for field in store.fields:
        for part in ('history', 'targets'):
          np.testing.assert_array_equal(
            getattr(one.batch, part).ids[field],
            getattr(other.batch, part).ids[field],
          )
