"""Hierarchical clusters against plain recursion, one user at a time."""

from __future__ import annotations

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from dare_jax.training import clusters


def _slow_split(points, rows, direction, max_size, iterations):
  """Returns the clusters of `rows`, lists of rows, by recursion."""
  if len(rows) <= max_size:
    return [rows]
  rows = sorted(rows)
  ordered = sorted(rows, key=lambda row: float(points[row] @ direction))
  k = max(2, int(np.floor(len(rows) ** 0.3)))
  centroids = [
    points[ordered[j * (len(rows) - 1) // (k - 1)]] for j in range(k)
  ]
  for iteration in range(iterations):
    if iteration:
      centroids = [
        points[part].mean(0) if part else centroid
        for part, centroid in zip(parts, centroids, strict=True)
      ]
    parts = [[] for _ in range(k)]
    for row in rows:
      distances = [((points[row] - c) ** 2).sum() for c in centroids]
      parts[int(np.argmin(distances))].append(row)
  parts = [part for part in parts if part]
  if len(parts) == 1:
    return [
      rows[start : start + max_size] for start in range(0, len(rows), max_size)
    ]
  return [
    leaf
    for part in parts
    for leaf in _slow_split(points, part, direction, max_size, iterations)
  ]


def _slow_user(points, stop, direction, max_size, iterations):
  """Returns cluster and rank of the events of one user."""
  n = len(points)
  if stop == 0:
    return list(range(n)), [0] * n
  leaves = sorted(
    _slow_split(points, list(range(stop)), direction, max_size, iterations),
    key=min,
  )
  centroids = [points[leaf].mean(0) for leaf in leaves]
  members = [list(leaf) for leaf in leaves]
  for row in range(stop, n):
    distances = [((points[row] - c) ** 2).sum() for c in centroids]
    members[int(np.argmin(distances))].append(row)
  cluster, rank = [0] * n, [0] * n
  for number, (rows, centroid) in enumerate(
    zip(members, centroids, strict=True)
  ):
    # Rounded, so that halves of a pair are as near as each other.
    near = {
      row: round(((points[row] - centroid) ** 2).sum(), 9) for row in rows
    }
    rows.sort(key=lambda row: (row >= stop, near[row], -row))
    for nth, row in enumerate(rows):
      cluster[row], rank[row] = number, nth
  return cluster, rank


def _slow_clusters(vectors, offsets, max_size, stops, iterations=5, seed=0):
  direction = np.random.default_rng(seed).normal(size=vectors.shape[1])
  cluster, rank = [], []
  for start, end, stop in zip(offsets[:-1], offsets[1:], stops, strict=True):
    points = vectors[start:end].astype(np.float64)
    of_user = _slow_user(points, stop - start, direction, max_size, iterations)
    cluster += of_user[0]
    rank += of_user[1]
  return cluster, rank


def _log(seed, sizes, width=3, num_items=None):
  """Returns vectors, offsets and late rows; few items repeat in most users."""
  rng = np.random.default_rng(seed)
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  n = int(offsets[-1])
  vectors = rng.normal(size=(n, width)).astype(np.float32)
  if num_items:
    vectors = vectors[rng.integers(0, min(num_items, n), n)]
  stops = offsets[:-1] + (
    rng.random(len(sizes)) * (np.diff(offsets) + 1)
  ).astype(np.int64)
  return vectors, offsets, stops


_SIZES = (0, 1, 40, 0, 2, 9, 75, 3, 0)


class ClustersTest(parameterized.TestCase):
  @parameterized.product(
    max_size=(1, 2, 5, 12),
    num_items=(None, 30, 4),
    iterations=(1, 5),
    with_late=(False, True),
  )
  def test_equals_recursion(self, max_size, num_items, iterations, with_late):
    for seed in range(3):
      vectors, offsets, stops = _log(seed, _SIZES, num_items=num_items)
      found = clusters.hierarchical_clusters(
        vectors,
        offsets,
        max_size,
        stops if with_late else None,
        iterations,
        seed,
      )
      assert found.cluster.dtype == found.rank.dtype == np.int32
      cluster, rank = _slow_clusters(
        vectors,
        offsets,
        max_size,
        stops if with_late else offsets[1:],
        iterations,
        seed,
      )
      assert found.cluster.tolist() == cluster
      assert found.rank.tolist() == rank

  def test_more_than_two_centroids_equal_recursion(self):
    # 400 ** 0.3 is 6.03.
    vectors, offsets, stops = _log(0, (400, 150), width=2)
    found = clusters.hierarchical_clusters(vectors, offsets, 6, stops)
    cluster, rank = _slow_clusters(vectors, offsets, 6, stops)
    assert found.cluster.tolist() == cluster
    assert found.rank.tolist() == rank

  @parameterized.parameters((1, None), (7, None), (7, 20), (20, 3))
  def test_sizes_ids_and_ranks(self, max_size, num_items):
    vectors, offsets, stops = _log(1, (*_SIZES, 500), num_items=num_items)
    found = clusters.hierarchical_clusters(vectors, offsets, max_size, stops)
    for start, end, stop in zip(offsets[:-1], offsets[1:], stops, strict=True):
      cluster, rank = found.cluster[start:end], found.rank[start:end]
      is_fitted = np.arange(start, end) < stop
      points = vectors[start:end].astype(np.float64)
      number = cluster.max(initial=-1) + 1
      np.testing.assert_array_equal(np.unique(cluster), np.arange(number))
      for c in range(number):
        rows = np.flatnonzero(cluster == c)
        fitted = rows[is_fitted[rows]]
        if not len(fitted):
          assert stop == start and len(rows) == 1
          continue
        assert len(fitted) <= max_size
        assert sorted(rank[rows]) == list(range(len(rows)))
        assert sorted(rank[fitted]) == list(range(len(fitted)))
        away = ((points - points[fitted].mean(0)) ** 2).sum(1)
        late = np.setdiff1d(rows, fitted)
        for part in (fitted, late):
          ranked = away[part[np.argsort(rank[part])]]
          # The mean is summed in another order here.
          assert (np.diff(ranked) >= -1e-9).all()

  def test_a_user_depends_on_no_other(self):
    vectors, offsets, stops = _log(2, _SIZES, num_items=40)
    found = clusters.hierarchical_clusters(vectors, offsets, 4, stops)
    for start, end, stop in zip(offsets[:-1], offsets[1:], stops, strict=True):
      alone = clusters.hierarchical_clusters(
        vectors[start:end],
        np.array([0, end - start]),
        4,
        np.array([stop - start]),
      )
      np.testing.assert_array_equal(alone.cluster, found.cluster[start:end])
      np.testing.assert_array_equal(alone.rank, found.rank[start:end])

  @parameterized.parameters(1, 10, 41, 100)
  def test_chunks_of_users_change_nothing(self, chunk):
    vectors, offsets, stops = _log(3, _SIZES)
    before = clusters.hierarchical_clusters(vectors, offsets, 4, stops)
    with mock.patch.object(clusters, '_CHUNK', chunk):
      after = clusters.hierarchical_clusters(vectors, offsets, 4, stops)
    np.testing.assert_array_equal(before.cluster, after.cluster)
    np.testing.assert_array_equal(before.rank, after.rank)

  def test_late_events_change_nothing_for_the_earlier(self):
    vectors, offsets, stops = _log(4, (60, 1, 90), num_items=50)
    before = clusters.hierarchical_clusters(vectors, offsets, 5, stops)
    is_late = np.arange(len(vectors)) >= np.repeat(stops, np.diff(offsets))
    assert is_late.any() and not is_late.all()
    changed = np.where(is_late[:, None], 50 - vectors, vectors)
    after = clusters.hierarchical_clusters(changed, offsets, 5, stops)
    kept = np.concatenate([[0], np.cumsum(stops - offsets[:-1])])
    without = clusters.hierarchical_clusters(vectors[~is_late], kept, 5)
    for name in ('cluster', 'rank'):
      expected = getattr(before, name)[~is_late]
      np.testing.assert_array_equal(getattr(after, name)[~is_late], expected)
      np.testing.assert_array_equal(getattr(without, name), expected)

  def test_late_events_join_the_nearest_cluster_even_a_full_one(self):
    vectors = np.array([[0], [1], [10], [11], [9], [0.4], [0.5]], np.float32)
    found = clusters.hierarchical_clusters(
      vectors, np.array([0, 7]), 2, np.array([4])
    )
    assert found.cluster.tolist() == [0, 0, 1, 1, 1, 0, 0]
    # Of a pair the most recent is 0.
    assert found.rank.tolist() == [1, 0, 1, 0, 2, 3, 2]

  def test_without_fitted_events_each_is_a_cluster(self):
    vectors = np.zeros((5, 2), np.float32)
    found = clusters.hierarchical_clusters(
      vectors, np.array([0, 3, 5]), 4, np.array([0, 5])
    )
    assert found.cluster.tolist() == [0, 1, 2, 0, 0]
    assert found.rank.tolist() == [0, 0, 0, 1, 0]

  def test_equal_vectors_are_cut_in_time_order(self):
    vectors = np.full((7, 3), 0.1, np.float32)
    found = clusters.hierarchical_clusters(vectors, np.array([0, 7]), 3)
    assert found.cluster.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert found.rank.tolist() == [2, 1, 0, 2, 1, 0, 0]

  @parameterized.parameters(([0],), ([0, 0, 0],))
  def test_no_events(self, offsets):
    found = clusters.hierarchical_clusters(
      np.zeros((0, 4), np.float32), np.array(offsets), 3
    )
    assert found.cluster.shape == found.rank.shape == (0,)

  def test_far_apart_scales_still_end(self):
    # Each split takes off little more than the largest.
    vectors = (4.0 ** np.arange(60) * 1e-18)[:, None].astype(np.float32)
    found = clusters.hierarchical_clusters(vectors, np.array([0, 60]), 2)
    assert np.bincount(found.cluster).max() <= 2

  def test_equal_inputs_give_equal_clusters(self):
    vectors, offsets, stops = _log(5, _SIZES)
    before = vectors.copy()
    state = np.random.get_state()[1].copy()
    one = clusters.hierarchical_clusters(vectors, offsets, 4, stops)
    other = clusters.hierarchical_clusters(vectors, offsets, 4, stops)
    np.testing.assert_array_equal(one.cluster, other.cluster)
    np.testing.assert_array_equal(one.rank, other.rank)
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)

  def test_members_are_near_each_other(self):
    rng = np.random.default_rng(6)
    centers = rng.normal(size=(40, 8))
    chosen = rng.integers(0, 40, 600)
    vectors = centers[chosen] + 0.1 * rng.normal(size=(600, 8))
    found = clusters.hierarchical_clusters(
      vectors.astype(np.float32), np.array([0, 600]), 20
    )

    def within(cluster):
      return sum(
        ((vectors[rows] - vectors[rows].mean(0)) ** 2).sum()
        for rows in (cluster == c for c in range(cluster.max() + 1))
      )

    assert within(found.cluster) < 0.1 * within(rng.permutation(found.cluster))

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_vectors_that_are_not_finite_are_refused(self, value):
    vectors = np.zeros((9, 2), np.float32)
    vectors[7, 1] = value
    with (
      mock.patch.object(clusters, '_CHUNK', 4),
      self.assertRaisesRegex(ValueError, r'vectors\[7\] is not finite'),
    ):
      clusters.hierarchical_clusters(vectors, np.array([0, 4, 9]), 2)

  @parameterized.parameters(
    ({'max_size': 0}, 'max_size=0: expected at least 1'),
    ({'iterations': 0}, 'iterations=0: expected at least 1'),
    ({'vectors': np.zeros(5, np.float32)}, r'shape \(5,\): expected \[n, d\]'),
    ({'vectors': np.zeros((5, 0), np.float32)}, 'd at least 1'),
    ({'offsets': np.array([0, 4])}, 'rows from 0 to 5'),
    ({'offsets': np.array([1, 5])}, 'rows from 0 to 5'),
    ({'offsets': np.array([0, 4, 3, 5])}, 'ascending'),
    ({'fit_before': np.array([1])}, 'each of the 2 users'),
    ({'fit_before': np.array([1, 1])}, r'fit_before\[1\]=1.*user 1, 2 to 5'),
    ({'fit_before': np.array([3, 5])}, r'fit_before\[0\]=3.*user 0, 0 to 2'),
  )
  def test_bad_arguments_are_refused(self, changes, message):
    arguments = {
      'vectors': np.zeros((5, 2), np.float32),
      'offsets': np.array([0, 2, 5]),
      'max_size': 2,
    }
    with self.assertRaisesRegex(ValueError, message):
      clusters.hierarchical_clusters(**{**arguments, **changes})


if __name__ == '__main__':
  absltest.main()
