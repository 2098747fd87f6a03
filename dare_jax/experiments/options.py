"""The options of a run, made from its config in this one place."""

from __future__ import annotations

import dataclasses

import ml_collections

from dare_jax.data import options as data_options
from dare_jax.logs import options as log_options
from dare_jax.training import options as train_options


@dataclasses.dataclass(frozen=True)
class TrainOptions:
  """How long a run trains, and on how much at a time; see `configs/base.py`.

  Attributes:
    batch_size: number of moments of a step.
    moments_per_window: number of moments of one user that share a window of
      behaviors.
    epochs: length of the run in epochs.
    steps: length of the run in steps, which replaces `epochs`; None: `epochs`.
    log_every_steps: steps between two lines of running metrics.
    observe_gradients: whether lengths and angles of the gradients of both roles
      are kept.
    init_from: workdir of the run to start from; None: from fresh values.
  """

  batch_size: int
  moments_per_window: int
  epochs: float
  steps: int | None
  log_every_steps: int
  observe_gradients: bool
  init_from: str | None


@dataclasses.dataclass(frozen=True)
class EvalOptions:
  """How a run is evaluated.

  Attributes:
    batch_size: number of moments of a batch.
    every_steps: steps between two validations; 0: at the end only.
    drop_last: whether a last partial batch is left out.
  """

  batch_size: int
  every_steps: int
  drop_last: bool


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
  """When a run is saved.

  Attributes:
    every_steps: steps between two checkpoints; 0: those of validations alone.
    keep_last: number of the newest checkpoints that are kept, besides the best.
  """

  every_steps: int
  keep_last: int


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
  """How histories are clustered, where the search works on clusters.

  Attributes:
    size: largest number of members of a cluster.
    every_steps: steps between two clusterings.
  """

  size: int
  every_steps: int


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """All options of a run but those of its model, a `RankerConfig`.

  Attributes:
    seed: seed of initial values, order and negatives.
    log: the log that is prepared, and how.
    data: how the log becomes splits and batches.
    prefetch: number of batches that are made ahead of the step.
    optim: how the model is trained.
    train: how long the model is trained.
    evaluation: how and when it is evaluated.
    checkpoint: when it is saved.
    clusters: how histories are clustered.
  """

  seed: int
  log: log_options.LogOptions
  data: data_options.PipelineOptions
  prefetch: int
  optim: train_options.Options
  train: TrainOptions
  evaluation: EvalOptions
  checkpoint: CheckpointOptions
  clusters: ClusterOptions


def of_config(config: ml_collections.ConfigDict) -> RunOptions:
  """Returns the options that a config holds.

  Args:
    config: the config of a run, with the fields of `configs/base.py`, which
      `config_check.check` has found in their ranges.

  Raises:
    UsageError: an optimizer, or a field of a synthetic log, that there is not.
  """
  model = config.model
  return RunOptions(
    seed=config.seed,
    log=log_options.of_section(config.data),
    data=data_options.of_section(config.data),
    prefetch=config.data.prefetch,
    optim=train_options.of_section(config.optim),
    train=TrainOptions(**config.train),
    evaluation=EvalOptions(**config.eval),
    checkpoint=CheckpointOptions(**config.checkpoint),
    clusters=ClusterOptions(model.cluster_size, model.cluster_every_steps),
  )
