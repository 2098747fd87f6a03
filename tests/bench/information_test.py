"""The logs that mutual information is measured on, in small."""

import numpy as np

from dare_jax.analysis import information as information_lib
from dare_jax.bench import information
from dare_jax.bench import planted
from dare_jax.configs import synthetic


def test_rows_see_whole_histories_of_their_user():
  histories, rows = information.made(300, length=20, num_categories=7)
  assert len(rows.target) == 300 and rows.label.sum() == 100
  _, seen = histories.before(rows.user, rows.end)
  assert seen.all()
  clicked = rows.take(np.flatnonzero(rows.label))
  np.testing.assert_array_equal(clicked.target, histories.category[clicked.end])


def test_counts_every_pair_of_categories_with_enough_rows():
  row = information.row(9_000, length=20, num_categories=4)
  assert row['target_categories'] == 4
  assert row['pairs'] == 9_000 * 20
  assert row['cells'] == 4 * 4 * 20
  assert 0 < row['most_bits'] < 1


def test_correlations_of_a_log_of_some_users():
  data = synthetic.get_config().data
  data.num_categories, data.num_items, data.recency_scale = 10, 20, 5.0
  data.history_length = 10
  row = planted.row(data, num_users=400, moments=100)
  assert row['rows'] == 400 * 100 * 3
  assert row['num_cells'] > 100
  assert 0.6 < row['spearman_expected'] <= 1


def test_moments_come_after_enough_behaviors():
  histories = information_lib.Histories(
    np.arange(60, dtype=np.int32) % 5, np.array([0, 10, 60]), 5, 7
  )
  rows = planted.made(histories, min_history=20, moments=4)
  assert set(rows.user.tolist()) == {1}  # The first has too few.
  assert rows.end.min() >= 30 and rows.end.max() < 60
  assert rows.label.reshape(-1, 3).tolist() == [[True, False, False]] * 4
