"""Domination and conflict, worked out by hand."""

import numpy as np
import pytest

from dare_jax.analysis.learning import gradients
from dare_jax.training.roles import gradient_statistics


def lines():
  """Two windows, of 50 and of 150 steps."""
  return [
    {
      'step': step,
      **{
        f'gradients/t_shared/{name}': value
        for name, value in zip(
          gradient_statistics.NAMES,
          (a, r, a, 3 * r, 0.1, c, 0, 0, c),
          strict=True,
        )
      },
    }
    for step, a, r, c in ((50, 1.0, 8.0, 0.5), (200, 2.0, 2.0, 0.25))
  ]


def test_ratios_weigh_windows_by_their_steps():
  found = gradients.over_steps(
    [{'step': 50, 'train/loss': 1.0}, *lines()], 't_shared'
  )
  assert found['series']['step'] == [50, 200]
  assert found['series']['conflict'] == [0.5, 0.25]
  # (50 x 8 + 150 x 2) / (50 x 1 + 150 x 2)
  assert found['ratio'] == pytest.approx(700 / 350)
  assert found['row_ratio'] == pytest.approx(3 * 700 / 350)
  assert found['row_ratio_first'] == pytest.approx(24.0)


def test_a_run_without_lines_yet_has_no_ratio():
  found = gradients.over_steps([], 't_shared')
  assert found['ratio'] is None and found['row_ratio_first'] is None


def test_conflict_is_the_lower_half_of_a_histogram():
  counts = np.zeros((2, gradient_statistics.BINS))
  half = gradient_statistics.BINS // 2
  counts[0, [0, half - 1, half]] = 1, 2, 5
  found = gradients.of_histograms(counts)
  assert found['cosine']['conflict'] == pytest.approx(3 / 8)
  assert found['row_cosine']['conflict'] is None


def test_popularity_joins_ids_that_occur_as_often():
  counts = np.array([0, 0, 1, 2, 3, 4])
  sums = np.zeros((6, 5))
  # Steps with both, conflicts, cosines, lengths of attention and the other.
  sums[2] = 10, 5, 0, 1.0, 4.0
  sums[3] = 4, 1, 0, 1.0, 2.0
  sums[4] = 4, 3, 0, 1.0, 4.0
  found = gradients.by_popularity(sums, counts)
  assert found == [
    {'from': 1, 'steps': 10, 'conflict': 0.5, 'ratio': 4.0},
    {'from': 2, 'steps': 8, 'conflict': 0.5, 'ratio': 3.0},
  ]
  grouped = np.zeros((33, 5))
  grouped[1:3] = sums[2], sums[3] + sums[4]
  assert gradients.by_popularity(grouped, np.ones(40_000, int)) == found
  assert gradients.by_popularity(sums, None) == []


def test_categories_that_are_mostly_in_conflict():
  counts = np.array([0, 0, 5, 9, 7])
  sums = np.zeros((5, 5))
  sums[2:, :2] = [[10, 6], [10, 5], [4, 0]]
  sums[2:, 3:] = [[1, 2], [2, 2], [0, 3]]
  found = gradients.by_category(sums, counts, lambda i: f'c{i}')
  assert found['number'] == 3
  assert found['mostly'] == pytest.approx(1 / 3)  # 0.6, not 0.5.
  assert sum(found['shares']) == 3
  assert [of['name'] for of in found['frequent']] == ['c3', 'c4', 'c2']
  assert [of['ratio'] for of in found['frequent']] == [1.0, None, 2.0]
