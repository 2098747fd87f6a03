"""The clusters of a run's histories: made anew from its tables at fixed steps.

TWIN-V2 clusters offline, by embeddings of an earlier model. Here the run's own
tables take their place. What a user did from the first validation or test
moment on never shapes a centroid; it joins the nearest one. Within training,
a moment's clusters are shaped by the user's later training behaviors, too.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import embeddings
from dare_jax import types
from dare_jax.data import history_store
from dare_jax.data import pipeline
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.search import clusters
from dare_jax.training import state as train_state
from dare_jax.training import table_updates


def shapes(
  store: history_store.HistoryStore, mesh: jax.sharding.Mesh
) -> types.Clusters:
  """Returns the shapes of a store's clusters, whole on each device."""
  entries = jax.ShapeDtypeStruct(
    (len(store.behaviors) + 1,),
    np.int32,
    sharding=jax.sharding.NamedSharding(mesh, mesh_lib.WHOLE),
  )
  return types.Clusters(cluster=entries, rank=entries)


def blank(
  state: train_state.TrainState,
  store: history_store.HistoryStore,
  mesh: jax.sharding.Mesh,
) -> train_state.TrainState:
  """Returns the state with room for the clusters of a store."""
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding),
    shapes(store, mesh),
  )
  return dataclasses.replace(state, clusters=zeros)


def refresh(
  state: train_state.TrainState,
  store: history_store.HistoryStore,
  plan: str,
  updater: table_updates.TableUpdater,
  max_size: int,
  held_out: Iterable[pipeline.Pipeline],
) -> train_state.TrainState:
  """Returns the state with each user's behaviors clustered by item vector.

  Args:
    state: gives the item table that the plan reads for the search.
    store: the histories.
    plan: name of the table plan.
    updater: knows where rows lie.
    max_size: most members of a cluster.
    held_out: splits whose behaviors shape no centroid.
  """
  suffix = embeddings.PLANS[plan].table_of['attention', 'behavior']
  table = np.asarray(state.tables['encoder'][f'item_{suffix}'])
  offsets = np.asarray(store.behaviors.offsets)
  fit_before = offsets[1:].copy()
  for split in held_out:
    np.minimum.at(fit_before, split.moments.user, split.moments.end)
  items = store.behaviors.columns['item_id'][:].astype(np.int64)
  found = clusters.hierarchical_clusters(
    table[updater.position('item', items)], offsets, max_size, fit_before
  )
  entry = lambda values: jnp.asarray(np.concatenate([[0], values]), jnp.int32)
  return dataclasses.replace(
    state,
    clusters=types.Clusters(
      cluster=entry(found.cluster), rank=entry(found.rank)
    ),
  )
