"""Clusters of behaviors as a moment sees them (TWIN V2)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.search import methods
from dare_jax.search import view as search_view


def cluster_view(
  cluster: Int[Array, 'b l'],
  rank: Int[Array, 'b l'],
  visible: Bool[Array, 'b m l'],
  distance: Int[Array, 'b m l'],
  num_clusters: int,
) -> tuple[Float[Array, 'b m l'], Bool[Array, 'b m l'], Int[Array, 'b m l']]:
  """Returns what each behavior's cluster is to each moment.

  Args:
    cluster: the number of each behavior's cluster, below `num_clusters` in
      padding as well.
    rank: nearness to the centroid, 0 the nearest; rank * l must fit int32.
    visible: False is no member.
    distance: position of each visible behavior, counted back from the moment;
      twice the sum over a cluster must fit int32.
    num_clusters: static; more than any id in `cluster`.

  Returns:
    The number of visible members of the behavior's cluster; whether the
    behavior represents it: the visible member of the lowest rank, of equals
    the most recent; and the members' mean distance, halves rounded up, at
    least 1. Where no member is visible, the size is 0 and the position 1.

  >>> import jax.numpy as jnp
  >>> size, is_representative, position = cluster_view(
  ...   jnp.array([[0, 1, 0, 0]]), jnp.array([[0, 0, 2, 1]]),
  ...   jnp.array([[[False, True, True, True]]]),
  ...   jnp.array([[[4, 3, 2, 1]]]), num_clusters=2)
  >>> size.tolist(), position.tolist()
  ([[[2.0, 1.0, 2.0, 2.0]]], [[[2, 3, 2, 2]]])
  >>> is_representative.tolist()
  [[[False, True, False, True]]]
  """
  length = rank.shape[-1]
  newest_first = jnp.arange(length, dtype=jnp.int32)[::-1]
  never = jnp.iinfo(jnp.int32).max

  def of_moment(
    cluster: Int[Array, ' l'],
    rank: Int[Array, ' l'],
    visible: Bool[Array, ' l'],
    distance: Int[Array, ' l'],
  ) -> tuple[Float[Array, ' l'], Bool[Array, ' l'], Int[Array, ' l']]:
    """Returns size, representative and position of one moment's clusters."""
    count = jax.ops.segment_sum(
      visible.astype(jnp.int32), cluster, num_clusters
    )
    total = jax.ops.segment_sum(
      jnp.where(visible, distance, 0), cluster, num_clusters
    )
    # These are distinct within a window.
    order = rank * length + newest_first
    least = jax.ops.segment_min(
      jnp.where(visible, order, never), cluster, num_clusters
    )
    position = (2 * total + count) // jnp.maximum(2 * count, 1)
    return (
      count.astype(jnp.float32)[cluster],
      visible & (order == least[cluster]),
      jnp.maximum(position, 1)[cluster],
    )

  of_window = jax.vmap(of_moment, in_axes=(None, None, 0, 0))
  return jax.vmap(of_window)(cluster, rank, visible, distance)


class ClusterSearch(methods.Search):
  """TWIN-V2's search: the `top_k` best clusters, each by its representative.

  A cluster counts by the number n of its visible members: its score is that of
  its representative, at the members' mean position, plus ln n (arXiv
  2407.16357, section 3.4). Without clusters each behavior is one of its own,
  which is TWIN.
  """

  clusters_history: ClassVar[bool] = True

  def rank(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> methods.Ranking:
    """Ranks clusters by the scores of their representatives, plus ln n."""
    clusters = view.history.clusters
    bonus = jnp.zeros(())
    if clusters is not None:
      size, representative, position = cluster_view(
        clusters.cluster,
        clusters.rank,
        view.visible,
        view.distance,
        self.options.num_clusters,
      )
      bonus = jnp.log(jnp.maximum(size, 1.0))[:, :, None, :]
      view = dataclasses.replace(
        view, visible=representative, distance=position, end=None
      )
    return methods.Ranking(scorer(view) + bonus, view=view)
