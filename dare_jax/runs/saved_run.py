"""What a run has saved, read back: its experiment and a state."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from dare_jax import errors
from dare_jax import storage
from dare_jax.checkpoints import checkpoint
from dare_jax.experiments import experiment
from dare_jax.experiments import run_config
from dare_jax.experiments import run_data
from dare_jax.process import library_logs
from dare_jax.process import numerics
from dare_jax.training import state as train_state
from dare_jax.warm_start import lineage


@dataclasses.dataclass(frozen=True)
class SavedRun:
  """A checkpoint of a run.

  Attributes:
    experiment: the run's parts.
    step: the step at which the checkpoint was saved.
    state: the training state at that step.
    description: what was saved beside it.
  """

  experiment: experiment.Experiment
  step: int
  state: train_state.TrainState
  description: dict[str, Any]

  @numerics.of_runs()
  def variables(self) -> dict[str, Any]:
    """Returns the variables with which `experiment.trainer.model` predicts."""
    return self.experiment.trainer.variables(self.state)


@library_logs.filtered()
@numerics.of_runs()
def restore(
  workdir: str | os.PathLike[str], which: str | int = 'best'
) -> SavedRun:
  """Returns a checkpoint of the run in a workdir; writes nothing there.

  Args:
    workdir: the folder of a run that has saved a checkpoint.
    which: 'best', 'last', or a step.

  Raises:
    UsageError: no run or no such checkpoint there, or its data is gone.
  """
  config = run_config.load(workdir)
  folder = storage.locate(workdir)
  checkpoints = checkpoint.Checkpoints(folder / 'checkpoints', read_only=True)
  step = _step(checkpoints, which, workdir)
  known = lineage.known_before(config, folder, has_begun=True)
  loaded = experiment.load(
    config, lambda: run_data.open_store(config, folder), known
  )
  state, description = checkpoints.restore(
    step, loaded.abstract_state(), loaded.store.fingerprint
  )
  return SavedRun(loaded, step, loaded.with_given(state), description)


def _step(
  checkpoints: checkpoint.Checkpoints,
  which: str | int,
  workdir: str | os.PathLike[str],
) -> int:
  which = str(which)
  if which.isdecimal():
    checkpoints.manager_of(int(which))
    return int(which)
  if which not in ('best', 'last'):
    raise errors.UsageError(
      f'--checkpoint={which}: expected best, last or a step.'
    )
  step = checkpoints.best_step if which == 'best' else checkpoints.last_step
  if step is None:
    if which == 'best' and checkpoints.last_step is not None:
      raise errors.UsageError(
        f'{workdir}: no validation has chosen a best checkpoint yet; use'
        ' --checkpoint=last.'
      )
    raise errors.UsageError(
      f'{workdir}: no {which} checkpoint yet; train first:'
      ' python -m dare_jax.train --workdir=DIR.'
    )
  return step
