"""The two definitions on a log small enough to work out by hand."""

import math

import numpy as np
import pytest

from dare_jax.analysis import cases
from dare_jax.analysis import information
from dare_jax.analysis import search_quality

TARGET, OTHER = 2, 3


@pytest.fixture
def histories():
  """One user with behaviors of the categories 3, 2, 3."""
  category = np.array([OTHER, TARGET, OTHER], np.int32)
  return information.Histories(category, np.array([0, 3]), 3, 4)


@pytest.fixture
def rows():
  """A clicked target and another one, both of category 2, at the end."""
  return information.Rows(
    np.array([TARGET, TARGET], np.int32),
    np.array([True, False]),
    np.array([0, 0], np.int32),
    np.array([3, 3]),
  )


def cells(clicked, other, num_clicked, num_other):
  """Counts of category 3 at position 1, 2 at 2 and 3 at 3; others none."""
  key = np.array([TARGET * 3 + 1, OTHER * 3, OTHER * 3 + 2])
  order = [1, 0, 2]  # Ascending keys; counts are given by position.
  return information.Cells(
    TARGET,
    3,
    key,
    np.array(clicked)[order],
    np.array(other)[order],
    num_clicked,
    num_other,
  )


def lists(found, by_category):
  return {
    'found': np.tile(np.array(found, np.int32), (2, 1)),
    'by_category': np.tile(np.array(by_category, np.int32), (2, 1)),
  }


def test_by_hand(histories, rows):
  """At most two are kept; none is official, for few rows are counted."""
  made = cells([3, 4, 0], [1, 0, 0], 4, 8)
  bits = information.mutual_information(
    np.array([3, 4, 0]), np.array([1, 0, 0]), 4, 8
  )
  assert bits[1] > bits[0] > bits[2] == 0
  quality = search_quality.Quality(
    {'a': lists([1, 2], [2, 3]), 'b': lists([3, 1], [1, 2])}, rows, histories
  )
  shown = [*quality.visit(made)]
  assert [seen.index.tolist() for seen in shown] == [[0, 1]]
  np.testing.assert_allclose(shown[0].information, [bits, bits])
  data = quality.data()
  assert data['num_rows'] == {'correct': 2, 'official': 0}
  discount = 1 / math.log2(3)
  ideal = bits[1] + bits[0] * discount
  ndcg = {
    'a': [bits[0] / bits[1], (bits[0] + bits[1] * discount) / ideal],
    'b': [0, bits[0] * discount / ideal],
  }
  hits = {'a': [0, 1], 'b': [0, 1 / 2]}
  same = {'a': [0, 1], 'b': [0, 0]}  # Position 2 is of the target's category.
  for label, model in data['models'].items():
    np.testing.assert_allclose(model['ndcg'], ndcg[label])
    np.testing.assert_allclose(model['hit_rate'], hits[label])
    np.testing.assert_allclose(model['same_category'], same[label])
    assert model['ndcg_by_step'][:2] == [None, None]
    assert 'official_ndcg' not in model
    mean = model['ndcg_by_step'][3]['mean']
    np.testing.assert_allclose(mean, ndcg[label][-1])
  by_category = data['models']['b']['ndcg_by_step'][2]['mean']
  expected = (bits[0] + bits[1] * discount) / ideal
  np.testing.assert_allclose(by_category, expected)


def test_official_by_hand(histories, rows):
  """All cells have 50 rows of each label, and none all rows of a label."""
  made = cells([60, 90, 70], [80, 50, 60], 100, 200)
  quality = search_quality.Quality(
    {'a': lists([1, 2], [3, 2])}, rows, histories
  )
  assert [*quality.visit(made)]
  bits = information.mutual_information(
    np.array([60, 90, 70]), np.array([80, 50, 60]), 100, 200
  )
  order = np.argsort(-bits) + 1
  assert order.tolist() == [2, 3, 1]
  discount = 1 / math.log2(3)
  ideal = bits[1] + bits[2] * discount
  data = quality.data()
  model = data['models']['a']
  assert data['num_rows']['official'] == 2
  expected = [bits[2] / ideal, (bits[2] + bits[1] * discount) / ideal]
  np.testing.assert_allclose(model['official_ndcg'], expected)
  assert model['official_hits'] == [1, 2]


@pytest.mark.parametrize(
  ('clicked', 'other', 'num_clicked'),
  [
    ([60, 49, 70], [80, 50, 60], 100),  # A cell with 49 clicked rows.
    ([60, 90, 70], [80, 50, 60], 90),  # A cell with all clicked rows.
  ],
)
def test_what_the_published_scripts_leave_out(
  histories, rows, clicked, other, num_clicked
):
  made = cells(clicked, other, num_clicked, 200)
  quality = search_quality.Quality(
    {'a': lists([1, 2], [3, 2])}, rows, histories
  )
  assert [*quality.visit(made)]
  assert quality.num_rows == {'correct': 2, 'official': 0}


def test_cases_are_clicked_rows_where_models_differ(histories, rows):
  made = cells([3, 4, 0], [1, 0, 0], 4, 8)
  quality = search_quality.Quality(
    {'a': lists([2, 1], [2, 1]), 'b': lists([3, 1], [1, 2])}, rows, histories
  )
  kept = cases.Cases(quality, rows.label)
  for seen in quality.visit(made):
    kept.visit(seen)
  ((differ, row, best, bits),) = kept._kept
  of_b = quality.ndcg['b']['own search'][0]
  np.testing.assert_allclose(differ, 1 - of_b)
  assert (row, best.tolist()) == (0, [2, 1, 3])
  assert bits[0] > bits[1] > bits[2] == 0
