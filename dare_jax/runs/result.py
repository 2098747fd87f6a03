"""The contents of `result.json`, and what is saved beside each checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

from dare_jax.checkpoints import description as described
from dare_jax.evaluation import metrics
from dare_jax.experiments import experiment
from dare_jax.experiments import run_config
from dare_jax.runs import environment
from dare_jax.runs import progress as progress_lib
from dare_jax.store import log_origin
from dare_jax.store import vector_store


def description(
  parts: experiment.Experiment, progress: progress_lib.Progress
) -> dict[str, Any]:
  """Returns what is saved beside a checkpoint."""
  told = {
    'progress': dataclasses.asdict(progress),
    'config': run_config.flatten(parts.config),
    'code_version': environment.code_version(),
    'data_fingerprint': parts.store.fingerprint,
    'data_made_from': (
      log_origin.path_of(parts.store) or parts.options.log.name
    ),
  }
  if isinstance(parts.store, vector_store.VectorStore):
    told[described.VECTORS] = parts.store.vectors.fingerprint
  return told


def make(
  parts: experiment.Experiment,
  progress: progress_lib.Progress,
  test: metrics.Report,
  parameters: dict[str, int],
) -> dict[str, Any]:
  """Returns what `result.json` holds.

  Args:
    parts: the experiment that was trained.
    progress: how far the run is at its end.
    test: the metrics of the test split at step `progress.tested_step`.
    parameters: role -> number of parameters, as `count_parameters` has it.
  """
  config, seconds = parts.config, progress.train_time_s
  return {
    'model': config.model.name,
    'dataset': config.data.name,
    'seed': config.seed,
    'steps': progress.step,
    'best_step': progress.tested_step,
    'best_by': progress.best_by if progress.has_best else None,
    'test': test.values,
    'val': progress.best_val,
    'left_out': test.left_out,
    'examples_per_s': progress.targets / max(seconds, 1e-9),
    'train_time_s': seconds,
    'parameters': parameters,
    'environment': environment.versions(),
    'config_hash': run_config.digest(config),
    'data_fingerprint': parts.store.fingerprint,
    'resumed_from': progress.resumed_from,
  }
