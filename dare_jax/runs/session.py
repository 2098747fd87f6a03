"""A run at work: its training state and its progress, which move together."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import dataclasses
import json
from typing import Any

import jax
import numpy as np

from dare_jax import storage
from dare_jax.checkpoints import checkpoint
from dare_jax.evaluation import judge
from dare_jax.evaluation import metrics
from dare_jax.experiments import experiment
from dare_jax.parallel import processes
from dare_jax.runs import gradient_log
from dare_jax.runs import metric_log as metric_log_lib
from dare_jax.runs import programs as programs_lib
from dare_jax.runs import progress as progress_lib
from dare_jax.runs import report
from dare_jax.runs import result as result_lib
from dare_jax.runs import workdir as workdir_lib
from dare_jax.training import feed
from dare_jax.training import log_window
from dare_jax.training import state as train_state
from dare_jax.training import state_summary


@dataclasses.dataclass(frozen=True)
class Files:
  """The open files of a run.

  Attributes:
    folder: the workdir, held by this process.
    checkpoints: the checkpoints in it.
    metric_log: the metrics in it.
  """

  folder: workdir_lib.Workdir
  checkpoints: checkpoint.Checkpoints
  metric_log: metric_log_lib.MetricLog


class Session:
  """Trains a run step by step, from a given state.

  Attributes:
    state: the training state.
    progress: how far the run is; it belongs to this state.
    files: the open files of the run.
  """

  def __init__(
    self,
    parts: experiment.Experiment,
    files: Files,
    programs: programs_lib.Programs,
    state: train_state.TrainState,
    progress: progress_lib.Progress,
  ) -> None:
    """Continues from a state.

    Args:
      parts: the experiment that is trained.
      files: the files of the run.
      programs: the training step, compiled for batches of some shapes.
      state: the training state to go on from.
      progress: how far the run is with that state.
    """
    self.state = state
    self.progress = progress
    self._experiment = parts
    self.files = files
    self._programs = programs
    self._clock = progress_lib.Clock()
    self._checked_step = progress.step
    self._pending = state.step

  def compile(self) -> None:
    """Compiles the training step for the batch that comes next."""
    with self.batches() as stream:
      fed = stream.next()
      assert fed is not None
      self._programs.compiled(self.state, fed.batch)

  def batches(self) -> feed.Feed:
    """Returns the stream of training batches from the next step on."""
    return self._experiment.train_batches(self.progress.step)

  def timed(self) -> contextlib.AbstractContextManager[None]:
    """Counts the time inside as training time."""
    return self._clock.running(self.progress)

  def step(self, batches: feed.Feed) -> None:
    """Starts the step of the next batch, once the step before it has ended.

    A batch of another row capacity than a program takes, or with histories of
    another length, has a program of its own compiled; that is no training time.

    Args:
      batches: what `batches` has returned.
    """
    fed = batches.next()
    assert fed is not None  # Training batches never end.
    self._pending.block_until_ready()  # One step in flight bounds the memory.
    if fed.batch not in self._programs:
      with self._paused():
        self._programs.compiled(self.state, fed.batch)
    program = self._programs.compiled(self.state, fed.batch)
    self.state, self._pending = program(self.state, fed.batch)
    self.progress.step += 1
    self.progress.targets += fed.targets
    self.files.metric_log.advance()

  def is_due(self, what: str) -> bool:
    """Returns whether something is to be done after this step.

    Args:
      what: 'log', 'eval' or 'checkpoint'; the options say how often.
    """
    options = self._experiment.options
    period = {
      'log': options.train.log_every_steps,
      'eval': options.evaluation.every_steps,
      'checkpoint': options.checkpoint.every_steps,
    }[what]
    step = self.progress.step
    return step > 0 and period > 0 and step % period == 0

  def cluster(self) -> None:
    """Clusters the histories anew at fixed steps, if the search needs it.

    A function of the step and the state: a resumed run does the same.
    """
    period = self._experiment.options.clusters.every_steps
    if not self._experiment.clusters_history or self.progress.step % period:
      return
    self._check_state()
    self.state = self._experiment.cluster(self.state)

  def log(self) -> None:
    """Writes the running metrics, and empties their sums in the state."""
    trainer, metric_log = self._experiment.trainer, self.files.metric_log
    with self._paused():
      sums = jax.device_get(self.state.sums)
      self._check_finite(np.isfinite(sums['loss']))
      found = log_window.summarize(sums)
      found.values['examples_per_s'] = metric_log.rate(self.progress)
      metric_log.write(self.progress, 'train', found)
      if (roles := gradient_log.of_window(sums, trainer)) is not None:
        metric_log.write(self.progress, 'gradients', roles)
      self._save_gradients()
    self.state = dataclasses.replace(self.state, sums=trainer.empty_sums())

  def validate(self, check_stop: Callable[[], None]) -> None:
    """Evaluates on the validation split once a step, and keeps the best."""
    progress = self.progress
    if progress.evaluated_step == progress.step:
      return
    with self._paused():
      self._check_state()
      found = self.evaluate('val', check_stop)
      progress.evaluated_step = progress.step
      self.files.metric_log.write(progress, 'val', found)
      assert progress.best_by is not None
      if judge.is_better(progress.best_by, found.values, progress.best_val):
        progress.best_step = progress.step
        progress.best_val = found.values
        self.files.metric_log.sync()
        self.files.checkpoints.save_best(
          progress.step, self.state, self._describe()
        )

  def evaluate(
    self, split: str, check_stop: Callable[[], None] = lambda: None
  ) -> metrics.Report:
    """Returns the metrics of a split."""
    self._programs.make_room()
    return self._experiment.predict(self.state, split, check_stop).report()

  def save(self) -> None:
    """Saves the state to go on from, in the background."""
    step = self.progress.step
    if self.files.checkpoints.has_last(step):
      return  # And `finish` may have given up the state.
    with self._paused():
      self._check_state()
      self.files.metric_log.sync()
      self._save_gradients()
      self.files.checkpoints.save_last(step, self.state, self._describe())

  def wait(self) -> None:
    """Waits for the save under way; raises if it failed."""
    self.files.checkpoints.wait()

  def finish(self, check_stop: Callable[[], None]) -> dict[str, Any]:
    """Tests the best checkpoint; writes its predictions, then the result.

    The state is given up, so that the best one takes its place in memory.
    """
    parts, progress = self._experiment, self.progress
    self.wait()
    parameters = state_summary.count_parameters(
      self.state, parts.trainer.trained_tables
    )
    for leaf in jax.tree.leaves(self.state):
      leaf.delete()
    best, _ = self.files.checkpoints.restore(
      progress.tested_step, parts.abstract_state(), parts.store.fingerprint
    )
    best = parts.with_given(best)
    self._programs.make_room()
    predictions = parts.predict(best, 'test', check_stop)
    test = predictions.report()
    self.files.metric_log.write(progress, 'test', test)
    result = result_lib.make(parts, progress, test, parameters)
    self.files.folder.write(lambda: self._write_result(predictions, result))
    return result

  def _write_result(
    self, predictions: metrics.Predictions, result: Mapping[str, Any]
  ) -> None:
    if processes.is_first():
      workdir = self.files.folder.path
      metrics.save(predictions, workdir / 'predictions_test.npz')
      content = json.dumps(result, indent=1).encode()
      storage.write(workdir / 'result.json', content)

  def _paused(self) -> contextlib.AbstractContextManager[None]:
    """Waits for the step under way, and leaves out the time inside."""
    return self._clock.paused(self.state, self.progress)

  def _save_gradients(self) -> None:
    if self._experiment.trainer.observes_gradients:
      folder, step = self.files.folder, self.progress.step
      folder.write(lambda: gradient_log.save(self.state, folder.path, step))

  def _describe(self) -> dict[str, Any]:
    return result_lib.description(self._experiment, self.progress)

  def _check_state(self) -> None:
    self._check_finite(bool(state_summary.is_finite(self.state)))

  def _check_finite(self, finite: bool) -> None:
    step = self.progress.step
    if finite:
      self._checked_step = step
      return
    window = f'{self._checked_step + 1} to {step}'
    good = max(self.files.checkpoints.steps(), default=None)
    raise report.diverged(
      window, self._experiment.config, self.files.folder.path, good
    )
