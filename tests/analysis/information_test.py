"""Counts and mutual information by hand, and against a slow twin."""

import collections
import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax.analysis import information


def slow_information(x1, x0, num_clicked, num_other):
  """I(X; Y) in bits from its definition."""
  total = num_clicked + num_other
  joint = {
    (1, 1): x1,
    (1, 0): x0,
    (0, 1): num_clicked - x1,
    (0, 0): num_other - x0,
  }
  bits = 0.0
  for (x, y), count in joint.items():
    if count:
      of_x = joint[x, 0] + joint[x, 1]
      of_y = joint[0, y] + joint[1, y]
      bits += count / total * math.log2(count * total / (of_x * of_y))
  return bits


def test_by_hand():
  """Of 4 clicked rows 3 have the behavior, of 8 others 1."""
  expected = (
    3 / 12 * math.log2(3 * 12 / (4 * 4))
    + 1 / 12 * math.log2(1 * 12 / (8 * 4))
    + 1 / 12 * math.log2(1 * 12 / (4 * 8))
    + 7 / 12 * math.log2(7 * 12 / (8 * 8))
  )
  found = information.mutual_information(np.array([3]), np.array([1]), 4, 8)
  np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_a_behavior_that_tells_all_is_worth_the_entropy_of_clicks():
  found = information.mutual_information(np.array([4]), np.array([0]), 4, 12)
  entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
  np.testing.assert_allclose(found, [entropy], rtol=1e-12)


@pytest.mark.parametrize('counts', [(0, 0), (2, 6), (4, 12)])
def test_a_behavior_that_tells_nothing_is_worth_nothing(counts):
  clicked, other = map(np.atleast_1d, counts)
  found = information.mutual_information(clicked, other, 4, 12)
  np.testing.assert_allclose(found, [0.0], atol=1e-15)


def test_the_published_scripts_count_what_is_missing_as_a_little():
  missing = information.OFFICIAL_MISSING
  found = information.mutual_information(
    np.array([3]), np.array([0]), 4, 8, missing
  )
  expected = slow_information(3, missing, 4, 8)
  np.testing.assert_allclose(found, [expected], rtol=1e-12)
  exact = slow_information(3, 0, 4, 8)
  assert 0 < exact - expected < 1e-4


def made_rows(seed, num_rows=300, num_categories=6, length=5):
  rng = np.random.default_rng(seed)
  lengths = rng.integers(0, 12, 20)
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  category = rng.integers(2, num_categories, offsets[-1]).astype(np.int32)
  user = rng.integers(0, 20, num_rows).astype(np.int32)
  end = offsets[user] + rng.integers(0, lengths[user] + 1)
  return information.Histories(
    category, offsets, length, num_categories
  ), information.Rows(
    rng.integers(2, num_categories, num_rows).astype(np.int32),
    rng.random(num_rows) < 0.4,
    user,
    end,
  )


def slow_counts(histories, rows, target):
  """(category, position) -> [others, clicked], row by row."""
  counts = collections.defaultdict(lambda: [0, 0])
  for row in np.flatnonzero(rows.target == target):
    first = histories.offsets[rows.user[row]]
    for position in range(1, histories.length + 1):
      at = rows.end[row] - position
      if at >= first:
        cell = int(histories.category[at]), position
        counts[cell][int(rows.label[row])] += 1
  return counts


@hypothesis.given(
  st.integers(0, 2**32 - 1), st.sampled_from([40, 300, 1500]),
  st.sampled_from([6, 200]),
)  # fmt: skip
def test_counts_equal_those_made_one_by_one(seed, num_rows, num_categories):
  """Few categories are counted in a table, many by sorting."""
  histories, rows = made_rows(seed, num_rows, num_categories)
  targets = np.unique(rows.target)
  found = [*information.sweep(histories, rows, targets, chunk=400)]
  assert [cells.target for cells in found] == targets.tolist()
  for cells in found:
    expected = slow_counts(histories, rows, cells.target)
    assert np.all(np.diff(cells.key) > 0)
    pairs = zip(
      zip(cells.category.tolist(), cells.position.tolist(), strict=True),
      zip(cells.other.tolist(), cells.clicked.tolist(), strict=True),
      strict=True,
    )
    assert {cell: [*counts] for cell, counts in pairs} == expected
    own = rows.label[rows.target == cells.target]
    assert (cells.num_clicked, cells.num_other) == (own.sum(), (~own).sum())


def test_both_ways_of_counting_are_taken(monkeypatch):
  taken = []
  for name in ('_count_in_table', '_count_sorted'):
    real = getattr(information, name)
    monkeypatch.setattr(
      information,
      name,
      lambda *args, name=name, real=real: taken.append(name) or real(*args),
    )
  for num_categories in (6, 200):
    histories, rows = made_rows(0, 300, num_categories)
    targets = np.unique(rows.target)
    assert [*information.sweep(histories, rows, targets, chunk=400)]
  assert {*taken} == {'_count_in_table', '_count_sorted'}


def test_wanted_categories_alone_are_counted():
  histories, rows = made_rows(1)
  found = [*information.sweep(histories, rows, np.array([3, 5]))]
  assert [cells.target for cells in found] == [3, 5]


def test_the_most_recent_comes_first_and_padding_is_masked():
  histories = information.Histories(
    np.array([7, 8, 9, 4]), np.array([0, 3, 4]), 4, 10
  )
  category, seen = histories.before(np.array([0, 1, 0]), np.array([3, 4, 0]))
  assert category.tolist() == [[9, 8, 7, 0], [4, 0, 0, 0], [0, 0, 0, 0]]
  assert seen.sum(axis=1).tolist() == [3, 1, 0]


def test_values_by_category_and_position():
  cells = information.Cells(
    2, 3, np.array([1, 5]), np.array([1, 0]), np.array([0, 2]), 1, 2
  )
  found = cells.dense(np.array([0.5, 0.25]), -1.0, num_categories=2)
  assert found.tolist() == [[-1, 0.5, -1], [-1, -1, 0.25]]
  assert (cells.category.tolist(), cells.position.tolist()) == ([0, 1], [2, 3])


def test_cells_that_tell_more_than_chance():
  """G of the first is 2 (60 ln 1.2 + 40 ln 0.8 + ..) = 8.05, of others 0."""
  significance = information.Significance()
  cells = information.Cells(
    2, 3, np.array([0, 1, 2]), np.array([60, 50, 20]), np.array([40, 50, 20]),
    100, 100,
  )  # fmt: skip
  significance.visit(cells)
  assert significance.cells == 2  # The third has too few rows.
  assert significance.share() == 0.5
  assert information.Significance().share() is None
