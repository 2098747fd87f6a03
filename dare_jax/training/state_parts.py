"""What a training holds, and what a step finds: trees of arrays."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import TypeAlias

from flax import struct

from dare_jax.embeddings import set_tables
from dare_jax.models import store_clusters

# A tree of arrays; elsewhere of their shapes, shardings or partition specs.
Tree: TypeAlias = Any
_GIVEN, _SETS = 'given', set_tables.MEMBERS


@struct.dataclass
class TrainState:
  """All that changes in training; saved and restored as a whole.

  `constants` are the model's fixed random directions, and two things that are
  not saved: by the name `given`, tables that are never trained; by the name
  `sets`, of which members the sets of a field are made (`set_tables`).
  `clusters` is entry by entry of `History.row`: entry 0 is padding, entry r + 1
  row r of the store; None where the search does not group behaviors.
  """

  step: Tree
  params: Tree
  tables: Tree
  batch_stats: Tree
  dense_slots: Tree
  table_slots: Tree
  sums: Tree
  constants: Tree = struct.field(default_factory=dict)
  clusters: Tree = None

  @property
  def seen(self) -> Tree:
    """What was seen of the gradients of the roles; None: nothing is."""
    return None


@struct.dataclass
class ObservedState(TrainState):
  """A training state with what was seen of the gradients of the roles.

  A class of its own: checkpoints of states without it stay as they are.
  """

  observed: Tree = None

  @property
  def seen(self) -> Tree:
    return self.observed


def with_seen(state: TrainState, seen: Tree) -> TrainState:
  """Returns a state with what was seen of its gradients; as it is for None."""
  if seen is None:
    return state
  parts = {
    field.name: getattr(state, field.name)
    for field in dataclasses.fields(TrainState)
  }
  return ObservedState(**parts, observed=seen)


def given_tables(state: TrainState) -> dict[str, Any]:
  """Returns name -> table as stored, of those that are never trained."""
  return dict(state.constants.get(_GIVEN, {}))


def members(state: TrainState) -> dict[str, Any]:
  """Returns what the sets of each field of sets are made of."""
  return dict(state.constants.get(_SETS, {}))


def every_table(state: TrainState) -> dict[str, Any]:
  """Returns name -> table as stored, trained or given."""
  return {**state.tables['encoder'], **given_tables(state)}


def untrained(state: TrainState) -> dict[str, Any]:
  """Returns the model's collections that no gradient moves, but tables."""
  constants = with_given(state, {}).constants
  found = {'batch_stats': state.batch_stats, 'constants': constants}
  if state.clusters is not None:
    found[store_clusters.COLLECTION] = store_clusters.collection(state.clusters)
  return found


def with_given(
  state: TrainState,
  tables: Mapping[str, Any],
  sets: Mapping[str, Any] | None = None,
) -> TrainState:
  """Returns a state with other tables that are never trained, and other sets.

  Args:
    state: the state, whose own such tables and sets are left out.
    tables: name -> table as stored, of those that are never trained.
    sets: field -> the members of its sets (`embeddings.set_tables`).
  """
  own = {name: dict(x) for name, x in ((_GIVEN, tables), (_SETS, sets)) if x}
  others = {
    k: v for k, v in state.constants.items() if k not in (_GIVEN, _SETS)
  }
  constants = {**others, **own}
  return dataclasses.replace(state, constants=constants)


@struct.dataclass
class Gradients:
  """What a batch says about a state: the loss, its gradients, statistics."""

  loss: Tree
  params: Tree
  tables: Tree
  batch_stats: Tree
  sums: Tree
  observed: Tree
