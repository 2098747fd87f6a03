"""Clusters as moments see them, one behavior at a time."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.search import cluster_search


def _slow_view(cluster, rank, visible, distance):
  size = np.zeros(visible.shape, np.float32)
  is_representative = np.zeros(visible.shape, bool)
  position = np.ones(visible.shape, np.int32)
  for b, m, i in np.ndindex(*visible.shape):
    members = [
      j for j in np.flatnonzero(visible[b, m]) if cluster[b, j] == cluster[b, i]
    ]
    if not members:
      continue
    size[b, m, i] = len(members)
    best = min(members, key=lambda j: (rank[b, j], -j))
    is_representative[b, m, i] = best == i
    mean = sum(int(distance[b, m, j]) for j in members) / len(members)
    position[b, m, i] = max(1, int(np.floor(mean + 0.5)))
  return size, is_representative, position


def _inputs(rng, b, m, length, num_clusters):
  cluster = rng.integers(0, num_clusters, (b, length)).astype(np.int32)
  # Few ranks, so that most clusters have ties.
  rank = rng.integers(0, 4, (b, length)).astype(np.int32)
  visible = rng.random((b, m, length)) < rng.random((b, m, 1))
  distance = rng.integers(0, 3 * length, (b, m, length)).astype(np.int32)
  return cluster, rank, visible, distance


def _view(cluster, rank, visible, distance, num_clusters):
  view = jax.jit(
    functools.partial(cluster_search.cluster_view, num_clusters=num_clusters)
  )
  return view(*map(jnp.array, (cluster, rank, visible, distance)))


class ClusterViewTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 1, 1, 1),
    (2, 3, 7, 1),
    (3, 1, 20, 6),
    (1, 5, 31, 40),
    (4, 2, 50, 9),
    (2, 19, 33, 300),
  )
  def test_equals_one_behavior_at_a_time(self, b, m, length, num_clusters):
    rng = np.random.default_rng(length)
    for _ in range(3):
      inputs = _inputs(rng, b, m, length, num_clusters)
      found = _view(*inputs, num_clusters)
      expected = _slow_view(*inputs)
      for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == (b, m, length) and ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)

  def test_each_cluster_in_sight_has_one_representative(self):
    rng = np.random.default_rng(1)
    cluster, rank, visible, distance = _inputs(rng, 3, 4, 40, 12)
    size, is_representative, _ = map(
      np.asarray, _view(cluster, rank, visible, distance, 12)
    )
    for b, m in np.ndindex(3, 4):
      chosen = is_representative[b, m]
      assert visible[b, m][chosen].all()
      assert size[b, m][chosen].sum() == visible[b, m].sum()
      in_sight = np.unique(cluster[b][visible[b, m]])
      np.testing.assert_array_equal(np.sort(cluster[b][chosen]), in_sight)

  def test_the_invisible_change_nothing_for_the_visible(self):
    rng = np.random.default_rng(2)
    cluster, rank, visible, distance = _inputs(rng, 1, 1, 30, 5)
    seen = visible[0, 0]
    before = _view(cluster, rank, visible, distance, 5)
    cluster[0, ~seen] = 4 - cluster[0, ~seen]
    rank[0, ~seen] = 0
    distance[0, 0, ~seen] = 10_000
    after = _view(cluster, rank, visible, distance, 5)
    for one, other in zip(before, after, strict=True):
      np.testing.assert_array_equal(one[0, 0, seen], other[0, 0, seen])

  def test_ids_with_gaps_and_a_larger_bound_change_nothing(self):
    rng = np.random.default_rng(3)
    cluster, rank, visible, distance = _inputs(rng, 2, 3, 25, 6)
    before = _view(cluster, rank, visible, distance, 6)
    after = _view(10 * cluster + 7, rank, visible, distance, 100)
    for one, other in zip(before, after, strict=True):
      np.testing.assert_array_equal(one, other)

  @parameterized.parameters(([1, 2], 2), ([1, 1, 2], 1), ([0], 1), ([5, 8], 7))
  def test_mean_positions_round_half_up_to_at_least_one(self, distance, want):
    length = len(distance)
    zeros = np.zeros((1, length), np.int32)
    visible = np.ones((1, 1, length), bool)
    _, _, position = _view(zeros, zeros, visible, [[distance]], 1)
    assert position.tolist() == [[[want] * length]]

  def test_nothing_in_sight(self):
    zeros = np.zeros((1, 3), np.int32)
    size, is_representative, position = _view(
      zeros, zeros, np.zeros((1, 1, 3), bool), zeros[None] + 9, 1
    )
    assert size.tolist() == [[[0.0] * 3]]
    assert not is_representative.any()
    assert position.tolist() == [[[1] * 3]]


if __name__ == '__main__':
  absltest.main()
