"""Metrics against scikit-learn and against a pair by pair count."""

import dataclasses
import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from dare_jax.evaluation import metrics

# Sums of a few hundred float64 terms in another order.
_TOLERANCE = 1e-12


def slow_auc(scores, labels, weights):
  """Pair by pair; None if there is no pair."""
  won = total = 0.0
  for i, j in itertools.product(range(len(scores)), repeat=2):
    if labels[i] and not labels[j]:
      pair = weights[i] * weights[j]
      won += pair * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
      total += pair
  return won / total if total else None


def slow_grouped_auc(scores, labels, weights, groups):
  total = weight = 0.0
  for group in set(groups.tolist()):
    own = groups == group
    value = slow_auc(scores[own], labels[own], weights[own])
    if value is not None:
      total += value * weights[own].sum()
      weight += weights[own].sum()
  return total / weight if weight else None


def same(value, expected):
  if expected is None:
    return np.isnan(value)
  return value == pytest.approx(expected, abs=_TOLERANCE)


@st.composite
def scored(draw, max_size=40):
  """Scores with many ties, labels, weights with zeros, groups."""
  size = draw(st.integers(1, max_size))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  levels = draw(st.sampled_from([1, 2, 5, 1000]))
  weight = rng.choice(
    draw(st.sampled_from([(1.0,), (0.0, 0.5, 1.0, 3.0)])), size
  )
  groups = rng.integers(0, draw(st.integers(1, 8)), size)
  return (
    rng.integers(-levels, levels, size) / 7,
    rng.integers(0, 2, size),
    weight,
    groups,
  )


@hypothesis.given(scored())
def test_auc_equals_the_count_of_pairs(drawn):
  scores, labels, weights, _ = drawn
  value = metrics.auc(scores, labels, weights)
  assert same(value, slow_auc(scores, labels, weights))


@hypothesis.given(scored())
def test_grouped_auc_equals_the_count_of_pairs(drawn):
  value = metrics.grouped_auc(*drawn)
  assert same(value, slow_grouped_auc(*drawn))


def test_agrees_with_scikit_learn():
  rng = np.random.default_rng(1)
  for levels in (3, 50, 10_000):
    logit = rng.integers(-levels, levels, 2000) * 4.0 / levels
    label = (rng.random(2000) < 1 / (1 + np.exp(-logit))).astype(float)
    weight = rng.choice([0.5, 1.0, 2.0], 2000)
    prob = 1 / (1 + np.exp(-logit))
    values = predictions(logit, label, weight).compute()
    kwargs = {'sample_weight': weight}
    expected = {
      'auc': sklearn_metrics.roc_auc_score(label, logit, **kwargs),
      'logloss': sklearn_metrics.log_loss(label, prob, **kwargs),
      'accuracy': sklearn_metrics.accuracy_score(label, logit > 0, **kwargs),
      'calibration': np.sum(weight * prob) / np.sum(weight * label),
    }
    for name, value in expected.items():
      # scikit-learn integrates a curve: as many roundings as rows.
      assert values[name] == pytest.approx(value, rel=1e-10), name


def predictions(logit, label, weight=None, groups=None, slices=None):
  size = len(logit)
  groups = np.arange(size) % 7 if groups is None else groups
  return metrics.Predictions(
    logit=np.asarray(logit),
    label=np.asarray(label),
    weight=np.ones(size) if weight is None else np.asarray(weight),
    user=np.asarray(groups),
    category=np.asarray(groups) // 2,
    slices=slices or {},
  )


def test_constant_scores_give_one_half():
  labels = np.array([0, 1, 1, 0, 0, 1])
  groups = np.array([0, 0, 1, 1, 2, 2])
  for value in (0.0, -3.5, 1e300, np.inf, -np.inf):
    scores = np.full(6, value)
    assert metrics.auc(scores, labels) == 0.5
    assert metrics.grouped_auc(scores, labels, None, groups) == 0.5


@hypothesis.given(scored())
def test_monotone_maps_change_nothing(drawn):
  scores, *rest = drawn
  # Exact in float64 for these scores, so that no ties arise or vanish.
  for mapped in (scores * 4 - 8, np.sign(scores) * scores**2, np.exp(scores)):
    np.testing.assert_array_equal(
      metrics.grouped_auc(mapped, *rest), metrics.grouped_auc(*drawn)
    )
    np.testing.assert_array_equal(
      metrics.auc(mapped, *rest[:2]), metrics.auc(*drawn[:3])
    )


@hypothesis.given(scored(max_size=200), st.integers(0, 10**6), st.data())
def test_batches_and_their_order_change_nothing(drawn, seed, data):
  logit, label, weight, groups = drawn
  slices = {'odd': groups % 2 == 1}
  whole = predictions(logit, label, weight, groups, slices)
  cuts = data.draw(st.lists(st.integers(0, len(logit)), max_size=5))
  rows = np.random.default_rng(seed).permutation(len(logit))
  parts = [
    predictions(
      logit[part],
      label[part],
      weight[part],
      groups[part],
      {'odd': slices['odd'][part]},
    )
    for part in np.split(rows, sorted(cuts))
  ]
  expected = whole.compute()
  merged = metrics.merge(parts).compute()
  assert merged.keys() == expected.keys()
  for name, value in expected.items():
    assert merged[name] == pytest.approx(value, rel=_TOLERANCE), name


def test_padding_changes_nothing():
  rng = np.random.default_rng(2)
  logit, label = rng.normal(size=30), rng.integers(0, 2, 30)
  padded = predictions(
    np.append(logit, [9.0, -9.0, np.nan]),
    np.append(label, [0, 1, 1]),
    np.append(np.ones(30), np.zeros(3)),
    np.append(np.arange(30) % 7, [0, 1, 99]),
  )
  assert padded.compute() == predictions(logit, label).compute()


def test_groups_of_one_class_are_left_out():
  scores = np.array([0.9, 0.1, 0.2, 0.8, 0.7])
  labels = np.array([1, 0, 1, 0, 1])
  groups = np.array([5, 5, -3, -3, 8])  # right, wrong, no negative
  assert metrics.grouped_auc(scores, labels, None, groups) == (2 + 0) / 4
  weights = np.array([1.0, 1.0, 1.0, 2.0, 1.0])
  assert metrics.grouped_auc(scores, labels, weights, groups) == 2 / (2 + 3)


def test_what_is_undefined_is_left_out():
  logit = np.array([0.5, -0.5])
  made = predictions(logit, [0, 0], slices={'none': np.zeros(2, bool)})
  assert set(made.compute()) == {'logloss', 'accuracy'}
  one_class = 'all 2 labels are 0'
  assert made.report().left_out == {
    'auc': one_class,
    'gauc': one_class,
    'category_gauc': one_class,
    'calibration': 'no target has label 1',
    'auc_none': 'there are no targets',
  }
  assert predictions(logit, [1, 1]).report().left_out == dict.fromkeys(
    ('auc', 'gauc', 'category_gauc'), 'all 2 labels are 1'
  )
  alone = predictions(logit, [1, 0], groups=np.array([0, 2]))
  assert alone.compute()['auc'] == 1
  assert alone.report().left_out == dict.fromkeys(
    ('gauc', 'category_gauc'), 'no group has both labels'
  )
  empty = np.zeros(0)
  assert predictions(empty, empty).compute() == {}
  assert set(predictions(empty, empty).report().left_out.values()) == {
    'there are no targets'
  }
  assert np.isnan(metrics.auc(empty, empty))
  assert np.isnan(metrics.grouped_auc(empty, empty, None, empty))


def test_extreme_logits():
  values = predictions([1000.0, -1000.0, 1000.0], [1, 0, 0]).compute()
  assert values['logloss'] == pytest.approx(1000 / 3)
  assert values['calibration'] == 2.0
  assert values['auc'] == (1 + 0.5) / 2


def test_logits_that_are_not_numbers_give_no_number():
  """Any would depend on the order of rows; padding does not count."""
  label = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
  groups = np.repeat([0, 1, 2], 2)
  logit = np.array([0.5, -0.5, np.nan, 0.3, 0.1, 0.2])
  slices = {'with': groups == 1, 'without': groups == 0}
  made = predictions(logit, label, groups=groups, slices=slices)
  assert made.compute() == {'auc_without': 1.0}
  reasons = made.report().left_out
  assert reasons.pop('auc_with') == '1 of 2 logits are not numbers'
  assert set(reasons) == {
    *('auc', 'gauc', 'category_gauc', 'logloss', 'accuracy', 'calibration')
  }
  assert set(reasons.values()) == {'1 of 6 logits are not numbers'}
  for order in itertools.permutations(range(3)):
    assert np.isnan(metrics.auc(logit[:3][[*order]], label[:3][[*order]]))
    assert np.isnan(
      metrics.grouped_auc(logit[[*order]], label[[*order]], None, groups[:3])
    )
  padded = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
  assert metrics.auc(logit, label, padded) == pytest.approx(5 / 6)


def test_infinite_logits_have_an_order_and_no_logloss():
  label = np.array([1.0, 0.0, 1.0, 0.0])
  for logit, auc in (
    ([np.inf, -np.inf, 0.5, 0.2], 1.0),
    ([-np.inf, -np.inf, np.inf, np.inf], 0.5),
    ([np.inf, 1.0, 0.5, 0.2], 0.75),
  ):
    made = predictions(logit, label, groups=np.zeros(4, int))
    values = made.compute()
    assert values['auc'] == values['gauc'] == auc
    count = np.isinf(logit).sum()
    assert made.report().left_out == {
      'logloss': f'{count} of 4 logits are infinite'
    }
    assert {'accuracy', 'calibration'} < set(values)


def test_means_are_over_the_targets_that_have_a_value():
  made = predictions(np.zeros(5), np.array([0, 1, 0, 1, 1]), [1, 2, 1, 1, 0])
  value = np.array([np.nan, 0.5, np.nan, 0.2, 9.0])
  made = dataclasses.replace(
    made, means={'found': value, 'none': value * np.nan}
  )
  values = metrics.merge([made, made]).compute()
  assert values['found'] == pytest.approx((2 * 0.5 + 0.2) / 3)
  assert 'none' not in values


def test_saved_predictions_have_the_metrics_of_the_whole(tmp_path):
  rng = np.random.default_rng(4)
  logit = rng.normal(size=50).astype(np.float32)
  weight = np.append(np.ones(45), np.zeros(5)).astype(np.float32)
  made = predictions(logit, rng.integers(0, 2, 50), weight)
  metrics.save(made, tmp_path / 'predictions.npz')
  loaded = metrics.load(tmp_path / 'predictions.npz')
  assert len(loaded.logit) == 45
  assert loaded.compute() == made.compute()
  assert [path.name for path in tmp_path.iterdir()] == ['predictions.npz']


def test_slices_restrict_auc():
  logit, label = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0, 0, 1])
  first = np.array([True, True, False, False])
  values = predictions(
    logit, label, slices={'first': first, 'second': ~first}
  ).compute()
  assert (values['auc_first'], values['auc_second']) == (0.0, 1.0)
