"""Clusters of the behaviors of a history store, as variables of a model.

They belong to rows of the store: a model that has them looks up those of a
batch by `History.row`.
"""

from __future__ import annotations

import dataclasses

from flax import linen as nn
import jax

from dare_jax import types

COLLECTION = 'clusters'
_FIELDS = ('cluster', 'rank')


def collection(clusters: types.Clusters) -> dict[str, types.Array]:
  """Returns clusters, entry by entry of `History.row`, as a collection."""
  return {field: getattr(clusters, field) for field in _FIELDS}


def look_up(module: nn.Module, history: types.History) -> types.History:
  """Returns a history with its clusters.

  Those that a history brings along stay. Without the collection, and without
  these, there are none: each behavior is a cluster of its own.

  Args:
    module: the model, perhaps with the collection.
    history: histories whose rows are those of the store of the run, or
      histories with clusters.

  Raises:
    ValueError: the model has the collection, and the history has neither.
  """
  if history.clusters is not None or not module.has_variable(
    COLLECTION, _FIELDS[0]
  ):
    return history
  if history.row is None:
    raise ValueError(
      'batch: history.row is missing: this model searches clusters, which are'
      ' known for the rows of its history store; give history.row, as the'
      " run's pipelines do, or for other behaviors history.clusters, made from"
      ' their item vectors by training.clusters.hierarchical_clusters.'
    )
  found = jax.tree.map(
    lambda entries: entries[history.row],
    types.Clusters(*(module.get_variable(COLLECTION, f) for f in _FIELDS)),
  )
  return dataclasses.replace(history, clusters=found, row=None)
