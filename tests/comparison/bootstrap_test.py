"""Weighted AUC and the paired bootstrap against slow, plain twins."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax.comparison import bootstrap
from dare_jax.evaluation import metrics
from tests.evaluation import metrics_test


def predictions(logit, label, user, weight=None) -> metrics.Predictions:
  weight = np.ones(len(logit)) if weight is None else weight
  return metrics_test.predictions(logit, label, weight, user)


@hypothesis.given(metrics_test.scored(), st.integers(0, 2**32 - 1))
def test_equals_the_count_of_pairs_for_any_weights_of_users(drawn, seed):
  """Many ties; some users drawn never, some several times."""
  logit, label, weight, user = drawn
  counts = np.random.default_rng(seed).integers(0, 4, (3, user.max() + 1))
  present = np.unique(user)
  found = bootstrap.WeightedAuc(predictions(logit, label, user, weight))(
    counts[:, present]
  )
  for value, own in zip(found, counts, strict=True):
    expected = metrics_test.slow_auc(logit, label, weight * own[user])
    assert metrics_test.same(value, expected)


def made(seed=0, users=30, rows=20, skill=1.0):
  """Every run is tested on the same rows."""
  shared = np.random.default_rng(5)
  user = np.repeat(np.arange(users) * 7, rows)
  label = shared.integers(0, 2, len(user))
  noise = np.random.default_rng(seed).normal(size=len(user))
  logit = np.round(skill * label + noise, 1).astype(np.float32)
  return predictions(logit, label, user)


def test_replicates_are_auc_of_users_drawn_with_replacement():
  given = made()
  found = bootstrap.replicates(given, 5)
  plain = metrics.auc(given.logit, given.label)
  assert found[0] == pytest.approx(plain, abs=1e-12)
  for index, value in enumerate(found[1:]):
    rng = np.random.default_rng([30, index])
    users = rng.integers(30, size=30) * 7
    rows = np.concatenate([np.flatnonzero(given.user == u) for u in users])
    expected = metrics.auc(given.logit[rows], given.label[rows])
    assert value == pytest.approx(expected, abs=1e-12)


def test_chunks_change_nothing(monkeypatch):
  expected = bootstrap.replicates(made(), 20)
  monkeypatch.setattr(bootstrap, '_CHUNK', 1)
  np.testing.assert_array_equal(bootstrap.replicates(made(), 20), expected)


def test_the_difference_is_paired_and_over_seeds():
  ours = [bootstrap.replicates(made(seed, skill=1.5)) for seed in (1, 2)]
  base = [bootstrap.replicates(made(seed)) for seed in (3, 4)]
  found = bootstrap.difference(ours, base)
  mean = (ours[0] + ours[1] - base[0] - base[1]) / 2
  assert found.mean == pytest.approx(mean[0])
  assert (found.low, found.high) == pytest.approx(
    tuple(np.percentile(mean[1:], [2.5, 97.5]))
  )
  assert 0 < found.low < found.mean < found.high
  same = bootstrap.difference(base, base)
  assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_the_interval_is_about_as_wide_as_theory_says():
  """For users of one row each: DeLong, DeLong and Clarke-Pearson (1988)."""
  given = made(users=2000, rows=1)
  auc = bootstrap.replicates(given)
  positive = given.logit[given.label > 0.5][:, None]
  negative = given.logit[given.label < 0.5]
  won = (positive > negative) + 0.5 * (positive == negative)
  variance = (
    won.mean(1).var() / len(positive) + won.mean(0).var() / won.shape[1]
  )
  assert auc[1:].std() == pytest.approx(np.sqrt(variance), rel=0.1)


def test_one_class_has_no_auc():
  given = predictions(np.zeros(4), np.ones(4), np.arange(4))
  assert np.isnan(bootstrap.replicates(given, 3)).all()


def test_logits_that_are_not_numbers_have_no_auc():
  logit, label = np.arange(6.0), np.arange(6) % 2
  given = predictions(logit, label, np.zeros(6, int))
  assert np.isfinite(bootstrap.replicates(given, 3)).all()
  given.logit[3] = np.nan
  assert np.isnan(bootstrap.replicates(given, 3)).all()
