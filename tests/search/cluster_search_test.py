"""Clusters as moments see them, one behavior at a time, and their search."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import search
from dare_jax import types
from dare_jax.search import cluster_search
from dare_jax.training import clusters as cluster_lib
from tests.models import reference
from tests.search import views


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


class ClusterSearchTest(parameterized.TestCase):
  def _check_equals_score_search(self, view: search.SearchView) -> None:
    length = view.keys.shape[1]
    expected = views.find(search.ScoreSearch, view)[0]
    found = views.find(search.ClusterSearch, view, num_clusters=length)[0]
    # What is not kept points anywhere.
    for name in ('indices', 'scores', 'distance'):
      np.testing.assert_array_equal(
        jnp.where(found.mask, getattr(found, name), 0),
        jnp.where(expected.mask, getattr(expected, name), 0),
      )
    np.testing.assert_array_equal(found.mask, expected.mask)

  @parameterized.parameters(*views.SHAPES)
  def test_without_clusters_and_with_clusters_of_one_it_is_twin(self, *shape):
    view = views.make_view(0, *shape)
    self._check_equals_score_search(view)
    windows, length = view.keys.shape[:2]
    ones = cluster_lib.hierarchical_clusters(
      np.asarray(view.keys).reshape(windows * length, -1),
      length * np.arange(windows + 1),
      max_size=1,
    )
    ones = types.Clusters(
      cluster=jnp.asarray(ones.cluster.reshape(windows, length)),
      rank=jnp.asarray(ones.rank.reshape(windows, length)),
    )
    self._check_equals_score_search(
      view.replace(history=view.history.replace(clusters=ones))
    )

  @parameterized.parameters(1, 2, 5)
  def test_n_equals_in_a_cluster_are_n_behaviors(self, n):
    # Behaviors 2 to 1 + n are the same, at the same position.
    view = views.make_view(1, 1, 1, 2, 9)
    key, distance = view.keys[:, 2:3], view.distance[:, :, 2:3]
    view = view.replace(
      keys=view.keys.at[:, 2 : 2 + n].set(key),
      distance=view.distance.at[:, :, 2 : 2 + n].set(distance),
      visible=jnp.ones((1, 1, 9), bool),
    )
    cluster = np.arange(9)
    cluster[2 : 2 + n] = 2
    clusters = types.Clusters(
      cluster=jnp.asarray(cluster[None], jnp.int32),
      rank=jnp.zeros((1, 9), jnp.int32),
    )
    history = view.history.replace(clusters=clusters)
    found = views.find(
      search.ClusterSearch,
      view.replace(history=history),
      num_clusters=9,
      top_k=9,
    )[0]
    full = views.find(search.FullSearch, view)[0]
    ours = views.at_home(views.weights(found), found, 9)
    each = np.array(views.at_home(views.weights(full), full, 9))
    # All of the cluster's weight is at its representative.
    each[..., 1 + n] = each[..., 2 : 2 + n].sum(-1)
    each[..., 2 : 1 + n] = 0
    np.testing.assert_allclose(ours, each, rtol=1e-5)
    values = jax.random.normal(jax.random.key(0), (1, 9, 3))
    values = np.array(values.at[:, 2 : 2 + n].set(values[:, 2:3]))
    np.testing.assert_allclose(
      np.einsum('bmcl,bld->bmcd', ours, values),
      np.einsum('bmcl,bld->bmcd', np.asarray(views.weights(full)), values),
      rtol=1e-5,
      atol=1e-6,
    )

  @parameterized.parameters(*views.SHAPES)
  def test_equals_the_equation(self, *shape):
    view = views.make_view(2, *shape, clusters=True)
    found, attention, _ = views.find(
      search.ClusterSearch, view, num_clusters=views.NUM_CLUSTERS
    )
    cluster = np.asarray(view.history.clusters.cluster)
    rank = np.asarray(view.history.clusters.rank)
    bias = np.asarray(view.bias_by_distance)
    query, keys, distance = map(
      np.asarray, (view.query, view.keys, view.distance)
    )
    for b, m, c in np.ndindex(*found.mask.shape[:3]):
      groups: dict[int, list[int]] = {}
      for i in np.flatnonzero(view.visible[b, m]).tolist():
        groups.setdefault(cluster[b, i], []).append(i)
      score, position = {}, {}
      for members in groups.values():
        best = min(members, key=lambda i, b=b: (rank[b, i], -i))
        mean = np.mean([distance[b, m, i] for i in members])
        position[best] = max(int(np.floor(mean + 0.5)), 1)
        content = np.dot(query[b, m, c], keys[b, best])
        scaled = content / np.sqrt(query.shape[-1])
        score[best] = scaled + bias[position[best]] + np.log(len(members))
      expected = reference.top_k(score, 3)
      mask = np.asarray(found.mask[b, m, c])
      assert np.asarray(found.indices[b, m, c])[mask].tolist() == expected
      np.testing.assert_array_equal(
        np.asarray(found.distance[b, m, c])[mask],
        [position[i] for i in expected],
      )
      np.testing.assert_allclose(
        np.asarray(found.scores[b, m, c])[mask],
        [score[i] for i in expected],
        rtol=1e-5,
        atol=1e-5,
      )
      np.testing.assert_array_equal(
        np.flatnonzero(attention.mask[b, m, 0]), sorted(score)
      )


if __name__ == '__main__':
  absltest.main()
