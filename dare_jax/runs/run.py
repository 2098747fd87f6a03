"""One run in its workdir: files, periods, checkpoints, result."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import dataclasses
import json
from typing import Any

from etils import epath
import jax
import ml_collections
import numpy as np

from dare_jax import storage
from dare_jax import types
from dare_jax.checkpoints import checkpoint
from dare_jax.evaluation import judge
from dare_jax.evaluation import metrics
from dare_jax.experiments import experiment
from dare_jax.experiments import run_config
from dare_jax.experiments import run_data
from dare_jax.parallel import processes
from dare_jax.runs import gradient_log
from dare_jax.runs import memory_plan
from dare_jax.runs import metric_log
from dare_jax.runs import opening
from dare_jax.runs import programs
from dare_jax.runs import progress as progress_lib
from dare_jax.runs import report
from dare_jax.runs import result as result_lib
from dare_jax.runs import workdir as workdir_lib
from dare_jax.training import feed
from dare_jax.training import log_window
from dare_jax.training import state as train_state
from dare_jax.training import state_summary
from dare_jax.warm_start import lineage
from dare_jax.warm_start import starting

Progress = progress_lib.Progress
TrainState = train_state.TrainState


class Run:
  """A run that is under way, or finished."""

  def __init__(
    self, config: ml_collections.ConfigDict, workdir: epath.PathLike
  ) -> None:
    """Opens data and workdir, which may be in a bucket.

    Raises:
      UsageError: bad config or data, another run's or an unwritable workdir;
        processes that were not given the same.
    """
    self.config = config
    self.workdir = storage.locate(workdir)
    fields = run_config.flatten(config)
    processes.agree_on({'the workdir': self.workdir, **fields})
    self._folder = workdir_lib.Workdir(self.workdir, config)
    self._checkpoints: checkpoint.Checkpoints | None = None
    self._metric_log: metric_log.MetricLog | None = None
    self._clock = progress_lib.Clock()
    self._checked_step = 0
    try:
      has_begun = self._folder.open()
      known = lineage.known_before(config, self.workdir, has_begun)
      opener = lambda: run_data.open_or_prepare(config, self.workdir)
      self.experiment = experiment.load(
        config, opener if has_begun else None, known
      )
      if not has_begun:
        parts = self.experiment
        judge.check(parts.store, parts.options.data.split, parts.labels)
    except BaseException:
      self._folder.release()
      raise
    self.options = self.experiment.options
    self.trainer = self.experiment.trainer
    self.total_steps = self.experiment.total_steps
    self._programs = programs.Programs(self.trainer.train_step)

  @property
  def checkpoints(self) -> checkpoint.Checkpoints:
    """The checkpoints, once `restore_or_init` has opened them."""
    assert self._checkpoints is not None
    return self._checkpoints

  @property
  def metric_log(self) -> metric_log.MetricLog:
    """The metrics, once `restore_or_init` has opened their files."""
    assert self._metric_log is not None
    return self._metric_log

  def finished(self) -> dict[str, Any] | None:
    """Returns the result if the run is done to its full length."""
    try:
      result = json.loads(storage.read(self.workdir / 'result.json') or b'')
      return result if result['steps'] == self.total_steps else None
    except (ValueError, KeyError, TypeError):
      return None  # None there, or a damaged one, which is made anew.

  def restore_or_init(self) -> tuple[TrainState, Progress]:
    """Returns the state to go on from, and opens the files of the workdir.

    Nothing is written there before all is checked that can be.
    """
    has_begun = self._folder.hold()
    processes.in_turn(self.experiment.check)
    shapes = self.experiment.abstract_state()
    steps = workdir_lib.saved_steps(self.workdir)
    step = max(steps) if steps and has_begun else None
    text = processes.in_turn(
      lambda: opening.describe(self.experiment, shapes, self.workdir, step)
    )
    if processes.is_first():
      print(text, flush=True)
    processes.in_turn(memory_plan.of_state(shapes).check)
    older = None if has_begun else self._older()
    self._plan_memory(shapes)
    progress = Progress()
    state = None if has_begun else self._fresh_state(older)
    self._checkpoints = checkpoint.Checkpoints(
      self.workdir / 'checkpoints', self.options.checkpoint.keep_last
    )
    restored = self._checkpoints.restore_last(
      shapes, self.experiment.store.fingerprint
    )
    if restored is not None:
      state, saved = restored
      progress = Progress(**saved['progress'])
      progress.resumed_from.append(progress.step)
      if processes.is_first():
        print(f'resuming {self.workdir} from step {progress.step}', flush=True)
    elif state is None:
      state = self._fresh_state(self._older())
    self._open_files(progress)
    return state, progress

  def _open_files(self, progress: Progress) -> None:
    self._folder.claim(lambda: lineage.save(self.workdir, self.experiment))
    self._metric_log = metric_log.MetricLog(
      self._folder,
      progress,
      self.total_steps,
      self.experiment.steps_per_epoch,
    )
    if progress.best_by is None:
      progress.best_by = judge.choose(self.experiment.labels['val'])
    if processes.is_first():
      for line in judge.notes(self.experiment.labels, progress.best_by):
        print(line, flush=True)
    self._checked_step = progress.step

  def _plan_memory(self, shapes: TrainState) -> None:
    """Tells what will be held in memory.

    Raises:
      UsageError: there is not so much.
    """
    steps = workdir_lib.saved_steps(self.workdir)
    with self.batches(processes.largest(max(steps, default=0))) as stream:
      fed = stream.next()
    assert fed is not None
    plan = memory_plan.of_step(
      shapes,
      fed.batch,
      self._programs.compiled(shapes, fed.batch),
      self.trainer.tables,
      self.options.prefetch,
    )
    processes.in_turn(plan.check)
    if processes.is_first():
      print(opening.aligned([('memory', str(plan))]), flush=True)

  def _older(self) -> starting.Older | None:
    """Returns the run to start from, if there is to be one."""
    origin = self.options.train.init_from
    if origin is None:
      return None
    return starting.Older(self.experiment, storage.locate(origin))

  def _fresh_state(self, older: starting.Older | None) -> TrainState:
    if older is None:
      return self.experiment.init_state()
    return starting.start_from(self.experiment, older)

  def batches(self, step: int) -> feed.Feed:
    """Returns the stream of training batches from `step` on."""
    return self.experiment.train_batches(step)

  def compile(
    self, state: TrainState, progress: Progress
  ) -> Callable[[TrainState, types.Batch], tuple[TrainState, jax.Array]]:
    """Returns the training step, compiled for the batch of this step.

    A batch that reads more rows, or fewer, than there is room for in a program,
    or has histories of another length, has another compiled; that is no
    training time either.
    """

    def step(
      state: TrainState, batch: types.Batch
    ) -> tuple[TrainState, jax.Array]:
      if batch not in self._programs:
        with self._clock.paused(state, progress):
          self._programs.compiled(state, batch)
      return self._programs.compiled(state, batch)(state, batch)

    with self.batches(progress.step) as stream:
      fed = stream.next()
      assert fed is not None
      self._programs.compiled(state, fed.batch)
    return step

  def due(self, section: str, step: int) -> bool:
    """Is it time to evaluate, or to save, by `<section>.every_steps`?"""
    period = self.config[section].every_steps
    return step > 0 and period > 0 and step % period == 0

  def timed(
    self, progress: Progress
  ) -> contextlib.AbstractContextManager[None]:
    """Counts the time inside as training time."""
    return self._clock.running(progress)

  def cluster(self, state: TrainState, progress: Progress) -> TrainState:
    """Clusters the histories anew at fixed steps, if the search needs it.

    A function of the step and the state: a resumed run does the same.
    """
    period = self.options.clusters.every_steps
    if not self.experiment.clusters_history or progress.step % period:
      return state
    self._check_state(state, progress.step)
    return self.experiment.cluster(state)

  def log(self, state: TrainState, progress: Progress) -> TrainState:
    """Writes the running metrics; returns the state with empty sums."""
    with self._clock.paused(state, progress):
      sums = jax.device_get(state.sums)
      self._check_finite(np.isfinite(sums['loss']), progress.step)
      found = log_window.summarize(sums)
      found.values['examples_per_s'] = self.metric_log.rate(progress)
      self.metric_log.write(progress, 'train', found)
      if (roles := gradient_log.of_window(sums, self.trainer)) is not None:
        self.metric_log.write(progress, 'gradients', roles)
      self._save_gradients(state, progress)
    return dataclasses.replace(state, sums=self.trainer.empty_sums())

  def validate(
    self,
    state: TrainState,
    progress: Progress,
    check_stop: Callable[[], None],
  ) -> None:
    """Evaluates on the validation split once a step, and keeps the best."""
    if progress.evaluated_step == progress.step:
      return
    with self._clock.paused(state, progress):
      self._check_state(state, progress.step)
      found = self.evaluate(state, 'val', check_stop)
      progress.evaluated_step = progress.step
      self.metric_log.write(progress, 'val', found)
      assert progress.best_by is not None
      if judge.is_better(progress.best_by, found.values, progress.best_val):
        progress.best_step = progress.step
        progress.best_val = found.values
        self.metric_log.sync()
        self.checkpoints.save_best(
          progress.step, state, self._describe(progress)
        )

  def evaluate(
    self,
    state: TrainState,
    split: str,
    check_stop: Callable[[], None] = lambda: None,
  ) -> metrics.Report:
    """Returns the metrics of a split."""
    return self.experiment.predict(state, split, check_stop).report()

  def save(self, state: TrainState, progress: Progress) -> None:
    """Saves the state to go on from, in the background."""
    if self.checkpoints.has_last(progress.step):
      return  # And `finish` may have given up the state.
    with self._clock.paused(state, progress):
      self._check_state(state, progress.step)
      self.metric_log.sync()
      self._save_gradients(state, progress)
      self.checkpoints.save_last(progress.step, state, self._describe(progress))

  def _save_gradients(self, state: TrainState, progress: Progress) -> None:
    if self.trainer.observes_gradients:
      write = lambda: gradient_log.save(state, self.workdir, progress.step)
      self._folder.write(write)

  def wait(self) -> None:
    """Waits for the save under way; raises if it failed."""
    self.checkpoints.wait()

  def _describe(self, progress: Progress) -> dict[str, Any]:
    return result_lib.description(self.experiment, progress)

  def _check_state(self, state: TrainState, step: int) -> None:
    self._check_finite(bool(state_summary.is_finite(state)), step)

  def _check_finite(self, finite: bool, step: int) -> None:
    if finite:
      self._checked_step = step
      return
    window = f'{self._checked_step + 1} to {step}'
    good = max(self.checkpoints.steps(), default=None)
    raise report.diverged(window, self.config, self.workdir, good)

  def finish(
    self,
    state: TrainState,
    progress: Progress,
    check_stop: Callable[[], None],
  ) -> dict[str, Any]:
    """Tests the best checkpoint; writes its predictions, then the result.

    The state is given up, so that the best one takes its place in memory.
    """
    self.checkpoints.wait()
    parameters = state_summary.count_parameters(state, self.trainer.tables)
    for leaf in jax.tree.leaves(state):
      leaf.delete()
    best, _ = self.checkpoints.restore(
      progress.tested_step,
      self.experiment.abstract_state(),
      self.experiment.store.fingerprint,
    )
    predictions = self.experiment.predict(best, 'test', check_stop)
    test = predictions.report()
    self.metric_log.write(progress, 'test', test)
    result = result_lib.make(self.experiment, progress, test, parameters)
    self._folder.write(lambda: self._write_result(predictions, result))
    return result

  def _write_result(
    self, predictions: metrics.Predictions, result: Mapping[str, Any]
  ) -> None:
    if processes.is_first():
      metrics.save(predictions, self.workdir / 'predictions_test.npz')
      storage.write(self.workdir / 'result.json', _json(result))

  def close(self) -> None:
    """Waits for the save under way, closes the files, leaves the workdir."""
    with contextlib.ExitStack() as stack:
      stack.callback(self._folder.release)
      for part in (self._checkpoints, self._metric_log):
        if part is not None:
          stack.callback(part.close)


def _json(content: Mapping[str, Any]) -> bytes:
  return json.dumps(content, indent=1).encode()
