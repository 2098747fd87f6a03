"""Curves over k by hand, and against slow twins."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np

from dare_jax.analysis import ranking

LOG3 = math.log2(3)


def test_ndcg_by_hand():
  """Positions 1 to 3 are worth 1, 3, 2; the list finds 3, then 1."""
  gain, lists = np.array([[1.0, 3.0, 2.0]]), np.array([[3, 1]])
  found = ranking.ndcg_curve(gain, lists, keep=2)
  expected = [2 / 3, (2 + 1 / LOG3) / (3 + 2 / LOG3)]
  np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_official_ndcg_has_the_whole_list_below_the_line():
  gain, lists = np.array([[1.0, 3.0, 2.0]]), np.array([[3, 1]])
  found = ranking.ndcg_curve(gain, lists, keep=2, of_whole=True)
  ideal = 3 + 2 / LOG3
  np.testing.assert_allclose(found, [[2 / ideal, (2 + 1 / LOG3) / ideal]])


def test_hits_by_hand():
  """The best are 5, 2, 9; found are 2, 7, 5."""
  lists, best = np.array([[2, 7, 5]]), np.array([[5, 2, 9]])
  found = ranking.hit_curve(lists, best, keep=3)
  np.testing.assert_allclose(found, [[0, 1 / 2, 2 / 3]])
  official = ranking.hit_curve(lists, best, keep=3, of_whole=True)
  assert official.tolist() == [[1, 1, 2]]


def test_recall_by_hand():
  """Positions 1 and 4 are relevant: k = 1 could hold one, k = 3 two."""
  relevant = np.array([[True, False, False, True]])
  found = ranking.recall_curve(np.array([[2, 4, 1]]), relevant, keep=3)
  np.testing.assert_allclose(found, [[0, 1 / 2, 1]])


def test_what_is_not_there_counts_for_nothing():
  gain = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
  lists = np.array([[0, 0], [1, 0]])
  assert np.isnan(ranking.ndcg_curve(gain, lists, 2)).all()
  hits = ranking.hit_curve(lists, ranking.best(gain, 2), 2)
  np.testing.assert_array_equal(hits, [[np.nan, np.nan], [1, 1]])
  assert np.isnan(ranking.recall_curve(lists, gain > 0, 2)).all()


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_curves_equal_their_definitions(seed, keep):
  rng = np.random.default_rng(seed)
  gain = rng.choice([0.0, 0.2, 1.0, 3.0, -np.inf], (4, 6))
  lists = np.stack([rng.permutation(6)[:5] + 1 for _ in range(4)])
  is_there = np.take_along_axis(gain, lists - 1, axis=1) > -np.inf
  lists = np.where(is_there, lists, 0)
  best = ranking.best(gain, keep)
  curve = ranking.ndcg_curve(gain, lists, keep)
  hits = ranking.hit_curve(lists, best, keep)
  for row in range(4):
    values = gain[row][gain[row] > -np.inf]
    ideal = sorted(values, reverse=True)
    for k in range(1, keep + 1):
      own = [gain[row, p - 1] if p else 0.0 for p in lists[row, :k]]
      dcg, most = (
        sum(g / math.log2(i + 2) for i, g in enumerate(of))
        for of in (own, ideal[:k])
      )
      expected = dcg / most if most else math.nan
      np.testing.assert_allclose(curve[row, k - 1], expected, rtol=1e-12)
      of_best = {*best[row, :k]} - {0}
      share = (
        len(of_best & {*lists[row, :k]}) / len(of_best) if of_best else math.nan
      )
      np.testing.assert_allclose(hits[row, k - 1], share)
