"""What a training holds, and what a step finds: trees of arrays."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import TypeAlias

from flax import struct

# A tree of arrays; elsewhere of their shapes, shardings or partition specs.
Tree: TypeAlias = Any


@struct.dataclass
class TrainState:
  """All that changes in training; saved and restored as a whole.

  `constants` are the model's fixed random directions. `clusters` is entry by
  entry of `History.row`: entry 0 is padding, entry r + 1 row r of the store;
  None where the search does not group behaviors.
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


@struct.dataclass
class Gradients:
  """What a batch says about a state: the loss, its gradients, statistics."""

  loss: Tree
  params: Tree
  tables: Tree
  batch_stats: Tree
  sums: Tree
  observed: Tree
