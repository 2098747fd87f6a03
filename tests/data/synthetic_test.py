"""The planted process: repeatable, recoverable from the log, and scalable."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.configs import synthetic as config_synthetic
from dare_jax.data import datasets
from dare_jax.data import synthetic
from dare_jax.training import retrieval

_SPEC = synthetic.Spec(
  num_users=400,
  num_items=500,
  num_categories=20,
  events_per_user=200,
  max_events=600,
  events_sigma=0.5,
  num_partners=2,
  self_share=0.5,
  recency_scale=5.0,
  relevance=0.7,
  item_exponent=1.1,
  category_exponent=0.8,
  synthetic_seed=0,
)


@pytest.fixture(scope='module')
def log() -> synthetic.SyntheticLog:
  return synthetic.generate(_SPEC)


def _equal(one: synthetic.SyntheticLog, two: synthetic.SyntheticLog) -> bool:
  return all(
    np.array_equal(getattr(one, name), getattr(two, name))
    for name in ('offsets', 'item', 'category', 'timestamp')
  )


def test_a_seed_is_a_log(log):
  assert _equal(log, synthetic.generate(_SPEC))
  other = dataclasses.replace(_SPEC, synthetic_seed=1)
  assert not _equal(log, synthetic.generate(other))
  other_truth = synthetic.make_truth(other).affinity_ids
  assert not np.array_equal(log.truth.affinity_ids, other_truth)


def test_shapes_and_order(log):
  lengths = np.diff(log.offsets)
  assert lengths.min() >= 100 and lengths.max() <= 600
  assert 190 < lengths.mean() < 225  # 200, and what the lower bound adds
  inner = np.ones(len(log.item) - 1, bool)
  inner[log.offsets[1:-1] - 1] = False
  assert (np.diff(log.timestamp)[inner] > 0).all()
  assert log.item.min() >= 0 and log.item.max() < 500
  # An item has one category.
  pairs = np.unique(np.stack([log.item, log.category]), axis=1)
  assert pairs.shape[1] == len(np.unique(log.item))


def test_truth_is_a_distribution_over_distinct_partners(log):
  ids = log.truth.affinity_ids
  assert ids.shape == (20, 3)
  np.testing.assert_array_equal(ids[:, 0], np.arange(20))
  assert all(len(set(row)) == 3 for row in ids.tolist())
  np.testing.assert_allclose(
    log.truth.affinity_weights,
    [0.5, 0.5 * 1 / 1.5, 0.5 * 0.5 / 1.5],
    rtol=1e-6,
  )
  np.testing.assert_allclose(log.truth.popularity.sum(), 1, rtol=1e-6)
  np.testing.assert_allclose(log.truth.decay[5], np.exp(-1), rtol=1e-6)


def _dense_affinity(truth: synthetic.Truth) -> np.ndarray:
  """P(c | c') as a matrix [c', c]."""
  size = len(truth.affinity_ids)
  affinity = np.zeros((size, size))
  for slot, weight in enumerate(truth.affinity_weights):
    affinity[np.arange(size), truth.affinity_ids[:, slot]] += weight
  return affinity


def _predicted(
  log: synthetic.SyntheticLog, rows: np.ndarray, window: int
) -> np.ndarray:
  """P(category | history) [rows, categories], from the published formula."""
  back = np.arange(1, window + 1)
  causes = log.category[rows[:, None] - back]
  decay = np.exp(-(back - 1) / _SPEC.recency_scale)
  terms = decay[:, None] * _dense_affinity(log.truth)[causes]
  caused = terms.sum(1) / decay.sum()
  return 0.3 * log.truth.popularity + 0.7 * caused


def test_the_formula_predicts_the_next_category(log):
  window = 80  # 16 recency scales: what lies beyond has weight 1e-7
  first = np.repeat(log.offsets[:-1], np.diff(log.offsets))
  rows = np.flatnonzero(np.arange(len(log.item)) - first >= window)
  predicted = _predicted(log, rows, window)
  actual = log.category[rows]
  # Calibration in ten classes of predicted probability, within five standard
  # deviations of a binomial count.
  borders = np.quantile(predicted, np.arange(0.1, 1, 0.1))
  classes = np.digitize(predicted, borders)
  hit = np.zeros(predicted.shape, bool)
  hit[np.arange(len(rows)), actual] = True
  for index in range(10):
    inside = classes == index
    expected = predicted[inside].sum()
    assert abs(hit[inside].sum() - expected) < 5 * np.sqrt(expected), index
  # The truth must predict better than a truth of another seed.
  other = dataclasses.replace(_SPEC, synthetic_seed=1)
  swapped = dataclasses.replace(log, truth=synthetic.make_truth(other))
  right = np.log(predicted[np.arange(len(rows)), actual]).mean()
  wrong = np.log(_predicted(swapped, rows, window)[hit]).mean()
  assert right > wrong + 0.2


def test_relevance_falls_with_the_position_as_planted(log):
  """The excess of the own category at a position decays with recency_scale."""
  excess = []
  first = np.repeat(log.offsets[:-1], np.diff(log.offsets))
  rows = np.flatnonzero(np.arange(len(log.item)) - first >= 100)
  base_rate = (log.category[rows] == log.category[rows - 95]).mean()
  for position in (1, 20):
    same = log.category[rows] == log.category[rows - position]
    excess.append(same.mean() - base_rate)
  # Direct causes alone give e^-3.8 = 0.02; chains of causes add to that.
  assert excess[0] > 0.05
  assert 0 < excess[1] < 0.4 * excess[0]


def test_relevance_equals_its_definition(log):
  ids = np.arange(20)
  target, behavior = np.meshgrid(ids + 2, ids + 2, indexing='ij')
  for position in (1, 7, 600):
    np.testing.assert_allclose(
      synthetic.relevance(log.truth, target, behavior, position),
      _dense_affinity(log.truth).T * np.exp(-(position - 1) / 5),
      rtol=1e-5,
      atol=1e-38,
    )


@pytest.mark.parametrize(
  ('target', 'behavior', 'position'),
  [
    (2, 0, 1),
    (2, 1, 1),
    (0, 2, 1),
    (1, 2, 1),
    (2, 22, 1),
    (2, 2, 0),
    (2, 2, 601),
  ],
)
def test_relevance_is_0_outside_the_tables(log, target, behavior, position):
  assert synthetic.relevance(log.truth, target, behavior, position) == 0
  assert synthetic.relevance(log.truth, 2, 2, 1) > 0


def test_zipf_items_and_categories(log):
  no_causes = dataclasses.replace(
    _SPEC, relevance=0.0, num_categories=2, num_partners=0, num_users=2_000
  )
  flat = synthetic.generate(no_causes)
  share = (flat.category == 0).mean()
  assert abs(share - 1 / (1 + 2**-0.8)) < 0.01
  counts = np.sort(np.bincount(flat.item[flat.category == 0]))[::-1]
  # The law of `_items` at rank 0: log(2^(1 - s)) over the whole range.
  size = len(np.unique(flat.item[flat.category == 0]))
  expected = np.expm1(-0.1 * np.log(2)) / np.expm1(-0.1 * np.log1p(size))
  assert abs(counts[0] / counts.sum() - expected) < 0.01


@pytest.mark.parametrize('exponent', [0.0, 1.0, 1.1, 3.0])
def test_exponents_keep_items_in_range(exponent):
  log = synthetic.generate(dataclasses.replace(_SPEC, item_exponent=exponent))
  assert log.item.min() >= 0 and log.item.max() < 500


def test_large_catalogue():
  large = dataclasses.replace(
    _SPEC, num_items=10_000_000, num_categories=100_000, num_users=100
  )
  log = synthetic.generate(large)
  assert log.item.max() > 5_000_000
  assert log.truth.affinity_ids.shape == (100_000, 3)


def test_long_histories():
  long = dataclasses.replace(
    _SPEC, num_users=3, events_per_user=100_000, max_events=200_000
  )
  log = synthetic.generate(long)
  assert np.diff(log.offsets).min() >= 50_000
  assert log.timestamp.min() > 0 and log.timestamp.max() < 2**31


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('num_users', 0),
    ('num_items', 0),
    ('num_items', 19),
    ('num_categories', 0),
    ('events_per_user', 0),
    ('max_events', 199),
    ('num_partners', 20),
    ('num_partners', -1),
    ('self_share', 1.5),
    ('recency_scale', 0.0),
    ('recency_scale', float('nan')),
    ('relevance', 2.0),
    ('relevance', 1.0),
    ('relevance', -0.1),
    ('item_exponent', -1.0),
    ('synthetic_seed', -1),
  ],
)
def test_bad_values_are_refused(field, value):
  with pytest.raises(errors.UsageError, match=f'data.{field}=.*expected'):
    dataclasses.replace(_SPEC, **{field: value})


def test_store_keeps_the_whole_catalogue_and_the_truth(tmp_path):
  data = config_synthetic.get_config().data
  data.data_dir = str(tmp_path)
  for field in dataclasses.fields(_SPEC):
    data[field.name] = getattr(_SPEC, field.name)
  data.num_users = 30
  data.num_items = 50_000
  store = datasets.prepare(data)
  assert store.vocab_sizes['item'] == 50_002
  assert store.vocab_sizes['category'] == 22
  assert store.num_users == 30
  spec = synthetic.Spec.from_config(data)
  made = synthetic.generate(spec)
  np.testing.assert_array_equal(
    store.behaviors.columns['item_id'], made.item + 2
  )
  np.testing.assert_array_equal(
    store.behaviors.columns['category_id'], made.category + 2
  )
  truth = synthetic.load_truth(store.path / 'truth')
  for name, table in vars(made.truth).items():
    np.testing.assert_array_equal(getattr(truth, name), table)
  text = json.loads((store.path / 'truth' / 'truth.json').read_text())
  assert text['parameters']['recency_scale'] == 5.0
  assert 'affinity_ids[behavior] == target' in text['formula']
  with pytest.raises(errors.UsageError, match='no planted truth'):
    synthetic.load_truth(tmp_path)
  retrieval.truth_of(store)
  path = store.path / 'truth' / 'affinity_weights.npy'
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(errors.UsageError, match='does not match its checksum'):
    retrieval.truth_of(store)


def test_another_spec_is_another_store():
  data = config_synthetic.get_config().data
  path = datasets.store_path(data)
  for field in dataclasses.fields(synthetic.Spec):
    changed = config_synthetic.get_config().data
    changed[field.name] += 1
    assert datasets.store_path(changed) != path, field.name
