"""The clusters of a run's histories: made anew from its tables at fixed steps.

TWIN-V2 clusters offline, by embeddings of an earlier model. Here the run's own
tables take their place. What a user did from the first validation or test
moment on never shapes a centroid; it joins the nearest one. Within training,
a moment's clusters are shaped by the user's later training behaviors, too.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import embeddings
from dare_jax import tables as tables_lib
from dare_jax import types
from dare_jax.data import pipeline
from dare_jax.data.ids import unknown_ids
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.parallel import processes
from dare_jax.store import history_store
from dare_jax.training import clusters
from dare_jax.training import state as train_state

_CHUNK = 1 << 16  # Rows that a device asks for at a time.


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
  """Returns the state with blank arrays for the clusters of a store."""
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding),
    shapes(store, mesh),
  )
  return dataclasses.replace(state, clusters=zeros)


def refresh(
  state: train_state.TrainState,
  store: history_store.HistoryStore,
  plan: str,
  tables: tables_lib.TableSet,
  max_size: int,
  held_out: Iterable[pipeline.Pipeline],
  known: np.ndarray | None = None,
) -> train_state.TrainState:
  """Returns the state with each user's behaviors clustered by item vector.

  Each process clusters its share of the users, then all tell each other.

  Args:
    state: the training state; the item table that the plan reads for the search
      gives the vectors.
    store: the histories of all users.
    plan: name of the table plan.
    tables: the tables of the model, which know where each row lies.
    max_size: largest number of members of a cluster.
    held_out: splits whose behaviors shape no centroid.
    known: bool [items], whether training reads an item; others are the
      unknown item. None: all are known.
  """
  suffix = embeddings.PLANS[plan].table_of['attention', 'behavior']
  table = tables_lib.read_table(state.tables['encoder'], f'item_{suffix}')
  offsets = np.asarray(store.behaviors.offsets)
  fit_before = offsets[1:].copy()
  for split in held_out:
    np.minimum.at(fit_before, split.moments.user, split.moments.end)
  users = _own_users(offsets)
  begin, end = offsets[users.start], offsets[users.stop]
  items = unknown_ids.as_known(
    store.behaviors.columns['item_id'][begin:end].astype(np.int64), known
  )
  found = clusters.hierarchical_clusters(
    _rows_of(table, tables.position('item', items)),
    offsets[users.start : users.stop + 1] - begin,
    max_size,
    fit_before[users] - begin,
  )
  assert state.clusters is not None
  entries = _of_all(np.stack([found.cluster, found.rank]))
  entries = np.pad(entries, ((0, 0), (1, 0)))
  sharding: Any = state.clusters.cluster.sharding
  cluster, rank = (
    jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
    for array in entries
  )
  return dataclasses.replace(state, clusters=types.Clusters(cluster, rank))


def _own_users(offsets: np.ndarray) -> slice:
  """Returns the users that this process clusters, about as many events each."""
  shares = np.arange(jax.process_count() + 1) / jax.process_count()
  bounds = np.searchsorted(offsets, offsets[-1] * shares)
  bounds[-1] = len(offsets) - 1  # Those without events come last, perhaps.
  number = jax.process_index()
  return slice(int(bounds[number]), int(bounds[number + 1]))


def _rows_of(table: jax.Array, positions: np.ndarray) -> np.ndarray:
  """Returns rows of a table, which other processes may hold.

  All processes call it, each with positions of its own.
  """
  if table.is_fully_addressable or table.is_fully_replicated:
    return np.asarray(table)[positions]
  wanted, inverse = np.unique(positions, return_inverse=True)
  sharding: Any = table.sharding
  devices = jax.local_device_count()
  most = max(1, processes.largest(-(-len(wanted) // devices)))
  chunk = min(most, _CHUNK)
  parts = []
  for start in range(0, most * devices, chunk * devices):
    part = wanted[start : start + chunk * devices]
    # Positions beyond the table fill up the last part; they read zeros.
    fill = len(table) + np.arange(chunk * devices - len(part))
    asked = mesh_lib.place(
      sharding.mesh, np.concatenate([part, fill]).astype(np.int32)
    )
    rows = mesh_lib.local_rows(_gather(sharding.mesh, table, asked))
    parts.append(rows[: len(part)])
  return np.concatenate(parts)[inverse]


@functools.partial(jax.jit, static_argnums=0)
def _gather(
  mesh: jax.sharding.Mesh, table: jax.Array, asked: jax.Array
) -> jax.Array:
  split = mesh_lib.SPLIT
  gather = lambda table, asked: tables_lib.gather_rows([table], asked)[0]
  return jax.shard_map(
    gather, mesh=mesh, in_specs=(split, split), out_specs=split
  )(table, asked)


def _of_all(entries: np.ndarray) -> np.ndarray:
  """Returns the entries of all processes, one after the other: [2, events]."""
  size = entries.shape[1]
  padded = np.zeros((2, processes.largest(size)), np.int32)
  padded[:, :size] = entries
  sizes = processes.gather(np.array([size]))[:, 0]
  parts = zip(processes.gather(padded), sizes, strict=True)
  return np.concatenate([part[:, :own] for part, own in parts], axis=1)
