"""Bins of moments, AUC and calibration in them, worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from dare_jax.analysis import resampling
from dare_jax.analysis import sources
from dare_jax.analysis.quality import slices
from dare_jax.evaluation import metrics
from dare_jax.store import history_store


@dataclasses.dataclass(frozen=True)
class Store:
  behaviors: history_store.Table
  vocab_sizes: dict[str, int]


def made():
  """Two users, two moments, each with a click and another target."""
  columns = {
    'item_id': np.array([10, 11, 10, 12, 11, 13]),
    'category_id': np.array([2, 3, 2, 3, 3, 2]),
    'timestamp': np.array([0, 5, 9, 1, 2, 8]),
  }
  table = history_store.Table(np.array([0, 3, 6]), columns)
  targets = sources.Targets(
    user=np.array([0, 1]),
    end=np.array([2, 5]),
    ids={
      'item': np.array([[10, 13], [13, 10]]),
      'category': np.array([[2, 2], [2, 2]]),
    },
    label=np.array([[True, False], [True, False]]),
    real=np.ones((2, 2), bool),
  )
  return targets, Store(table, {'item': 14, 'category': 4})


def test_moments_are_parted_by_what_was_before_them():
  """Of item 10 the first user saw one, two behaviors ago, 5 before the last."""
  parts = {p.title: p for p in slices.of_moments(*made(), length=9)}
  assert {title: (p.names, p.bin.tolist()) for title, p in parts.items()} == {
    'item in the history': (['seen', 'not seen'], [0, 1]),
    'category in the history': (['seen', 'not seen'], [0, 1]),
    'time since the item was last seen': (['5'], [0, -1]),
    'history length': (['2'], [0, 0]),
    'behaviors of the user': (['3'], [0, 0]),
    'occurrences of the item': (['1', '2'], [1, 0]),
  }


def test_what_lies_beyond_the_history_is_not_seen():
  parts = {p.title: p for p in slices.of_moments(*made(), length=1)}
  assert parts['item in the history'].bin.tolist() == [1, 1]


def test_a_moment_without_a_click_has_no_item():
  targets, store = made()
  targets = dataclasses.replace(targets, label=np.zeros((2, 2), bool))
  parts = {p.title: p for p in slices.of_moments(targets, store, 9)}
  assert parts['item in the history'].bin.tolist() == [-1, -1]
  assert parts['occurrences of the item'].names == []
  assert parts['history length'].bin.tolist() == [0, 0]


def predictions(logit):
  return metrics.Predictions(
    logit=np.array(logit, np.float32),
    label=np.array([1, 0, 1, 0, 0]),
    weight=np.ones(5),
    user=np.array([0, 0, 1, 1, 1]),
    category=np.zeros(5, int),
  )


def test_auc_by_hand():
  """Moment 0 wins its pair in one model; moment 1 one of its two in both."""
  part = slices.Slices('half', ['first', 'second'], np.array([0, 1]))
  moment = np.array([0, 0, 1, 1, 1])
  models = {
    'a': predictions([2, 1, 0, -1, 1]),
    'b': predictions([0, 1, 0, -1, 1]),
  }
  found = slices.by_auc(part, moment, models)
  means = {
    label: [estimate['mean'] for estimate in estimates]
    for label, estimates in found['models'].items()
  }
  assert means == {'a': [1.0, 0.5], 'b': [0.0, 0.5]}
  assert found['moments'] == [1, 1]
  assert [e['mean'] for e in found['difference']['b']] == [-1.0, 0.0]
  # One user each: there is nothing to draw.
  assert found['difference']['b'][0] == {
    'mean': -1.0,
    'low': -1.0,
    'high': -1.0,
  }


def test_ratio_by_hand():
  part = slices.Slices('half', ['first', 'second'], np.array([0, 1]))
  moment = np.array([0, 0, 1, 1, 1])
  found = slices.by_ratio(part, moment, {'a': predictions([0, 0, 0, 0, 0])})
  np.testing.assert_allclose(found['models']['a'], [1.0, 1.5])


def test_curve_by_hand(monkeypatch):
  monkeypatch.setattr(slices, '_CURVE_BINS', 2)
  logit = [math.log(3)] * 3 + [-math.log(3)] * 2  # 3/4 and 1/4.
  found = slices.curve(predictions(logit))
  # Targets 3, 4 and 0, of which 0 was clicked; then 1 and 2.
  np.testing.assert_allclose(
    found['predicted'], [(1 / 4 + 1 / 4 + 3 / 4) / 3, 3 / 4]
  )
  assert [o['mean'] for o in found['observed']] == [1 / 3, 1 / 2]


def test_interval_over_users():
  values, user = np.array([0.0, 0.0, 1.0, np.nan]), np.array([0, 0, 1, 2])
  found = resampling.mean_interval(values, user)
  # Drawn are both users, or one of them twice.
  assert (found['mean'], found['low'], found['high']) == (1 / 3, 0.0, 1.0)
  assert resampling.mean_interval(values[3:], user[3:]) is None


@pytest.mark.parametrize('size', [1, 2, 9])
def test_bins_hold_everything_once(size):
  value = np.arange(size)
  part = slices._quantiles('x', value, np.ones(size, bool))
  assert sorted({*part.bin.tolist()}) == list(range(len(part.names)))
  assert len(part.names) == min(size, 4)
