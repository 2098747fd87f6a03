"""The training step, compiled for each room that a batch takes."""

from __future__ import annotations

from typing import Any

from dare_jax import types
from dare_jax.training import state as train_state


class Programs:
  """Compiled steps, by the length of histories and the rows that are read."""

  def __init__(self, train_step: Any) -> None:
    """Args: train_step: jitted, of a state and a batch."""
    self._train_step = train_step
    self._compiled: dict[tuple[int, ...], Any] = {}

  def __contains__(self, batch: types.Batch) -> bool:
    return _room(batch) in self._compiled

  def compiled(self, state: train_state.TrainState, batch: types.Batch) -> Any:
    """Returns the step for the room of a batch; state: or its shapes."""
    room = _room(batch)
    if room not in self._compiled:
      self._compiled[room] = self._train_step.lower(state, batch).compile()
    return self._compiled[room]


def _room(batch: types.Batch) -> tuple[int, ...]:
  rows = (len(rows) for rows in batch.rows.values())
  return batch.history.mask.shape[1], *rows
