"""One trainer for all runs of one model, so that it is traced once a worker.

What a trainer compiles depends on the model and on how it is trained, not on
the run. Trainers that tests make themselves are their own, and processes that
they start share the compilation cache alone.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import types
from typing import Any

from dare_jax.experiments import experiment
from dare_jax.training import state as train_state

_made: dict[Any, train_state.Trainer] = {}


@contextlib.contextmanager
def shared() -> Iterator[None]:
  """Runs that are opened within it take up the trainers of earlier ones."""
  parts = {**vars(train_state), 'Trainer': _make}
  experiment.train_state = types.SimpleNamespace(**parts)
  try:
    yield
  finally:
    experiment.train_state = train_state


def _make(
  model: Any,
  options: Any,
  total_steps: int,
  mesh: Any,
  observe_gradients: bool,
) -> train_state.Trainer:
  # The length of a run is in a schedule of rates alone.
  length = None if options.schedule == 'constant' else total_steps
  key = (model, options, length, mesh, observe_gradients)
  if key not in _made:
    _made[key] = train_state.Trainer(
      model, options, total_steps, mesh, observe_gradients
    )
  return _made[key]


def forget() -> None:
  _made.clear()
