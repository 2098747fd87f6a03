"""The training step, compiled once for each shape that batches have.

Two shapes change from batch to batch: the length of its histories, and the row
capacity of each field, which is how many table rows the batch has places for.
"""

from __future__ import annotations

from typing import Any

import jax

from dare_jax import types
from dare_jax.process import memory_maps
from dare_jax.training import state as train_state


class Programs:
  """Compiled training steps, by the shape of the batches that they take."""

  def __init__(self, train_step: Any) -> None:
    """Compiles nothing yet.

    Args:
      train_step: the training step, jitted; takes a state and a batch.
    """
    self._train_step = train_step
    self._compiled: dict[tuple[int, ...], Any] = {}

  def __contains__(self, batch: types.Batch) -> bool:
    return _shape(batch) in self._compiled

  def compiled(self, state: train_state.TrainState, batch: types.Batch) -> Any:
    """Returns the training step compiled for batches of this one's shape.

    Before it compiles, it calls `make_room`.

    Args:
      state: the training state, or its shapes.
      batch: a batch on the mesh, with its table rows.
    """
    shape = _shape(batch)
    if shape not in self._compiled:
      self.make_room()
      self._compiled[shape] = self._train_step.lower(state, batch).compile()
    return self._compiled[shape]

  def make_room(self) -> None:
    """Drops all programs, and JAX's own, where the process can map few more.

    Those that are needed again are compiled again.
    """
    if memory_maps.nearly_all_taken():
      self._compiled.clear()
      jax.clear_caches()


def _shape(batch: types.Batch) -> tuple[int, ...]:
  """Returns the length of the histories, and each field's row capacity."""
  capacities = (len(rows) for rows in batch.rows.values())
  return batch.history.mask.shape[1], *capacities
