"""Evaluation: every row once, padding never, slices by what was seen."""

import collections

import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.logs import event_log
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import feed
from dare_jax.training import prediction
from tests.data import stores


class Scorer:
  """Stands for a trainer: scores a target by its item id."""

  def predict_step(self, state, batch, keep):
    del state
    assert keep == 0
    return jax.numpy.asarray(batch.targets.ids['item'], float), None


def _rows():
  """7 users; the test item of an even user is one it had before."""
  for user in range(7):
    for time in range(6):
      item = (user * 5 + time) % 20 if time < 5 else user * 5 % 20
      item = item if user % 2 == 0 or time < 5 else 40 + user
      yield user, item, item % 3, time


@pytest.fixture(scope='module')
def parts():
  store = stores.build(_rows())
  data = stores.data_options(
    min_events=3, min_history=2, history_length=8, num_negatives=2
  )
  moments = splits.make_splits(store, data)
  made = pipeline.Pipeline(store, moments['test'], 'test', data, seed=3)
  return store, moments['test'], made


def _predict(made, batch_size, *options):
  placer = feed.Placer(mesh_lib.make(), {})
  step = Scorer().predict_step
  return prediction.predict(step, None, made, placer, batch_size, *options)


def test_batch_size_changes_nothing(parts):
  expected = _predict(parts[2], 7).compute()
  assert {'auc', 'gauc', 'auc_item_seen', 'auc_item_unseen'} <= set(expected)
  for size in (1, 2, 3, 6, 8, 50):
    values = _predict(parts[2], size).compute()
    assert values == pytest.approx(expected, rel=1e-12), size


def test_every_row_once_with_its_slices(parts):
  _, moments, made = parts
  found = _predict(made, 4)
  real = found.weight > 0
  assert collections.Counter(found.user[real].tolist()) == dict.fromkeys(
    range(7), 3
  )
  assert (~real).sum() == 3  # 8 moments in two batches, 3 targets each
  assert found.label[real].sum() == len(moments) == 7
  for user in range(7):
    own = real & (found.user == user)
    # One flag a moment, that of its positive, for all of its targets.
    assert found.slices['item_seen'][own].tolist() == [user % 2 == 0] * 3
  for field in ('item', 'category'):
    np.testing.assert_array_equal(
      found.slices[f'{field}_seen'], ~found.slices[f'{field}_unseen']
    )


def _impressions():
  """6 users; sessions of 3 impressions, the second or the third a click."""
  for user in range(6):
    for time in range(8):
      for slot in range(3):
        clicked = slot == 1 + (user + time) % 2
        item = (user * 3 + time * slot) % 12
        yield user, item, item % 4, 10 * time, int(clicked)


@pytest.mark.parametrize('with_labels', [False, True])
@pytest.mark.parametrize('max_padding', [None, 0.3])
def test_single_rows_have_the_slices_of_their_moment(with_labels, max_padding):
  """That of its positive, which may lie in another batch."""
  store = stores.build(
    _impressions() if with_labels else _rows(),
    schema=event_log.LogSchema(has_labels=with_labels),
  )
  found = {}
  for is_grouped in (True, False):
    data = stores.data_options(
      min_events=3,
      min_history=2,
      history_length=8,
      num_negatives=2,
      group_candidates=is_grouped,
      max_padding=max_padding,
    )
    moments = splits.make_splits(store, data)
    made = pipeline.Pipeline(store, moments['test'], 'test', data, seed=3)
    for size in (1, 2, 4, 50):
      found[is_grouped, size] = _predict(made, size)
  expected = found[True, 50]
  assert expected.slices.keys() == {
    f'{field}_{what}'
    for field in ('item', 'category')
    for what in ('seen', 'unseen')
  }
  assert {True, False} == set(expected.slices['item_seen'].tolist())
  for (_, size), predictions in found.items():
    real = predictions.weight > 0
    for name, flags in expected.slices.items():
      np.testing.assert_array_equal(
        predictions.slices[name][real],
        flags[expected.weight > 0],
        err_msg=f'{name}, batches of {size}',
      )
    assert predictions.compute() == pytest.approx(expected.compute(), rel=1e-12)


def test_the_last_partial_batch_counts_unless_dropped(parts):
  made = parts[2]
  whole = _predict(made, 3)
  cut = _predict(made, 3, lambda: None, None, True)
  real = whole.weight > 0
  assert (real.sum(), (cut.weight > 0).sum()) == (21, 18)  # 7 and 6 moments
  np.testing.assert_array_equal(cut.user, whole.user[: len(cut.user)])
  full = _predict(made, 7, lambda: None, None, True)
  assert (full.weight > 0).sum() == 21


def test_a_stop_request_abandons_it(parts):
  calls = []

  def check():
    calls.append(1)
    if len(calls) == 3:
      raise errors.Stopped('now')

  with pytest.raises(errors.Stopped):
    _predict(parts[2], 1, check)
  assert len(calls) == 3
