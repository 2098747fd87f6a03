"""A run that is analysed, as it is known before what it has learned is read."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import ml_collections
import orbax.checkpoint as ocp

from dare_jax import errors
from dare_jax import storage
from dare_jax import trained
from dare_jax.checkpoints import checkpoint
from dare_jax.experiments import run_config


@dataclasses.dataclass(frozen=True)
class Source:
  """A run and the checkpoint of it that is read.

  Attributes:
    label: the workdir's name, or all of its path where names repeat.
    workdir: the workdir of the run.
    step: the step of its best checkpoint, or of its last where none is best
      yet.
    config: the config of the run.
    identity: what tells this checkpoint from any other.
  """

  label: str
  workdir: str
  step: int
  config: ml_collections.ConfigDict
  identity: dict[str, Any]

  @property
  def data_fingerprint(self) -> str:
    """The fingerprint of the data that it was trained on."""
    return str(self.identity['data'])

  @functools.cached_property
  def run(self) -> trained.Trained:
    """What the run has learned, read when it is first asked for."""
    return trained.load(self.workdir, str(self.step))

  @property
  def searches_clusters(self) -> bool:
    """Whether its model searches over clusters of behaviors."""
    return bool(self.run.experiment.clusters_history)

  def read(self, name: str) -> bytes | None:
    """Returns a file of the run as it is now; None if it is not there."""
    return storage.read(storage.locate(self.workdir) / name)

  def metric_lines(self) -> list[dict[str, Any]]:
    """Returns the whole lines of metrics.jsonl so far."""
    lines = (self.read('metrics.jsonl') or b'').split(b'\n')[:-1]
    return [json.loads(line) for line in lines]


def open_run(label: str, workdir: str) -> Source:
  """Returns a run, of which the config and the checkpoint's name are read.

  Args:
    label: what the report calls it.
    workdir: the workdir of the run.

  Raises:
    UsageError: no run or no checkpoint there.
  """
  config = run_config.load(workdir)
  checkpoints = checkpoint.Checkpoints(
    storage.locate(workdir) / 'checkpoints', read_only=True
  )
  step = checkpoints.best_step
  step = checkpoints.last_step if step is None else step
  if step is None:
    raise errors.UsageError(
      f'--runs: {workdir} has no checkpoint yet; wait for its first.'
    )
  saved = checkpoints.manager_of(step).restore(
    step, args=ocp.args.Composite(description=ocp.args.JsonRestore())
  )
  description = saved['description']
  identity = {
    'config': run_config.digest(config),
    'step': step,
    'checkpoint': description.get('crc32'),
    'data': description.get('data_fingerprint'),
  }
  return Source(label, workdir, step, config, identity)
