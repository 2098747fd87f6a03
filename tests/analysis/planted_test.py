"""Against the planted relevance, where it is known by hand."""

import dataclasses
import math

import numpy as np

from dare_jax.analysis import information
from dare_jax.analysis import planted
from dare_jax.analysis import planted_information
from dare_jax.logs.builders import synthetic


def truth():
  """Two categories; each makes itself (0.75) and the other (0.25) likely."""
  return synthetic.Truth(
    affinity_ids=np.array([[0, 1], [1, 0]], np.int32),
    affinity_weights=np.array([0.75, 0.25], np.float32),
    decay=np.array([1.0, 0.5], np.float32),
    popularity=np.array([0.5, 0.5], np.float32),
  )


def test_ndcg_by_hand():
  """Of categories 3, 2 for a target of 2: worth 0.25 and 0.375."""
  histories = information.Histories(
    np.array([2, 3], np.int32), np.array([0, 2]), 2, 4
  )
  rows = information.Rows(
    np.array([2, 2], np.int32), np.array([True, False]),
    np.array([0, 0], np.int32), np.array([2, 2]),
  )  # fmt: skip
  lists = {'a': {'found': np.array([[1, 2], [2, 1]], np.int32)}}
  found = planted.search_curves(truth(), lists, rows, histories, keep=2)['a']
  discount = 1 / math.log2(3)
  expected = [
    0.25 / 0.375,
    (0.25 + 0.375 * discount) / (0.375 + 0.25 * discount),
  ]
  np.testing.assert_allclose(found['curve'], expected)
  np.testing.assert_allclose(found['ndcg']['mean'], expected[1])


def test_cells_with_too_few_rows_are_left_out():
  cells = planted.Cells(truth())
  key = np.array([2 * 2, 2 * 2 + 1, 3 * 2, 3 * 2 + 1])
  cells.visit(
    information.Cells(
      2, 2, key, np.array([900, 700, 500, 3]),
      np.array([100, 200, 400, 3]), 1000, 1000,
    )
  )  # fmt: skip
  data = cells.data()
  # Worth 0.75, 0.375, 0.25; the bits fall in the same order.
  assert data['num_cells'] == 3
  np.testing.assert_allclose(data['spearman'], 1.0)
  np.testing.assert_allclose(data['relevance'], [0.25, 0.375, 0.75])


def test_expected_information_of_a_markov_chain():
  """Where only the last event is a cause, A_k are powers of one matrix."""
  made = dataclasses.replace(
    truth(),
    decay=np.array([1.0, 1e-12], np.float32),
    popularity=np.array([0.6, 0.4], np.float32),
  )
  expected = planted_information.Expected(made, 0.5, length=3)
  affinity = np.array([[0.75, 0.25], [0.25, 0.75]])
  step = 0.5 * np.array([0.6, 0.4]) + 0.5 * affinity
  powers = [np.linalg.matrix_power(step, k + 1) for k in range(3)]
  np.testing.assert_allclose(expected.frequency @ step, expected.frequency)
  for k in range(3):
    np.testing.assert_allclose(expected.follows[k], powers[k], rtol=1e-6)
  cells = information.Cells(
    2, 3, np.array([2 * 3, 3 * 3 + 2]), *np.ones((2, 2), int), 100, 200
  )
  clicked = expected.frequency * [powers[0][0, 0], powers[2][1, 0]]
  clicked = clicked / expected.frequency[0] * 100
  np.testing.assert_allclose(
    expected(cells),
    information.mutual_information(clicked, expected.frequency * 200, 100, 200),
    rtol=1e-5,
  )


def test_expected_chances_are_those_of_a_log():
  """Slow decay, so that causes of causes and the past matter."""
  spec = synthetic.Spec(
    num_users=2_000, num_items=3, num_categories=3, events_per_user=300,
    max_events=400, events_sigma=0.1, num_partners=1, self_share=0.8,
    recency_scale=8.0, relevance=0.6, item_exponent=0.0,
    category_exponent=0.8, synthetic_seed=0,
  )  # fmt: skip
  log = synthetic.generate(spec)
  expected = planted_information.Expected(log.truth, spec.relevance, length=20)
  place = np.arange(len(log.category))
  late = place - np.repeat(log.offsets[:-1], np.diff(log.offsets)) >= 100
  share = np.bincount(log.category[late]) / late.sum()
  np.testing.assert_allclose(expected.frequency, share, rtol=0.02)
  for lag in (1, 5, 20):
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (log.category[place[late] - lag], log.category[late]), 1)
    found = pairs / pairs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(expected.follows[lag - 1], found, atol=0.006)


def test_information_ranks_cells_as_planted():
  """Where categories are equally popular and few causes have a cause.

  The information of a cell grows with the rarity of its target as well, and
  with what a behavior brings about by way of others.
  """
  spec = synthetic.Spec(
    num_users=10_000, num_items=40, num_categories=40, events_per_user=100,
    max_events=200, events_sigma=0.1, num_partners=3, self_share=0.5,
    recency_scale=5.0, relevance=0.4, item_exponent=0.0,
    category_exponent=0.0, synthetic_seed=0,
  )  # fmt: skip
  log = synthetic.generate(spec)
  rng = np.random.default_rng(0)
  lengths = np.diff(log.offsets)
  user = np.repeat(np.arange(spec.num_users), 80)
  end = log.offsets[user] + rng.integers(20, lengths[user])
  category = log.category + 2
  positive = category[end]
  negative = rng.choice(category, len(end))
  rows = information.Rows(
    np.concatenate([positive, negative]),
    np.repeat([True, False], len(end)),
    np.tile(user, 2),
    np.tile(end, 2),
  )
  histories = information.Histories(category, log.offsets, 6, 42)
  implied = planted_information.Expected(log.truth, spec.relevance, 6)
  cells = planted.Cells(log.truth, implied)
  for one in information.sweep(histories, rows, np.arange(2, 42)):
    cells.visit(one)
  data = cells.data()
  assert data['num_cells'] > 950  # Of 40 x 4 x 6; some may have few rows.
  assert data['spearman'] >= 0.9
  assert data['spearman_expected'] >= 0.9
