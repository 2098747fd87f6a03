"""One run in its workdir: opened, checked, and taken up where it is."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from etils import epath
import ml_collections

from dare_jax import storage
from dare_jax.checkpoints import checkpoint
from dare_jax.evaluation import judge
from dare_jax.experiments import experiment
from dare_jax.experiments import run_config
from dare_jax.experiments import run_data
from dare_jax.parallel import processes
from dare_jax.runs import memory_plan
from dare_jax.runs import metric_log
from dare_jax.runs import opening
from dare_jax.runs import programs
from dare_jax.runs import progress as progress_lib
from dare_jax.runs import session as session_lib
from dare_jax.runs import workdir as workdir_lib
from dare_jax.training import feed
from dare_jax.training import state as train_state
from dare_jax.warm_start import lineage
from dare_jax.warm_start import starting

Progress = progress_lib.Progress
TrainState = train_state.TrainState


class Run:
  """A run that begins, that resumes, or that is finished."""

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

  def finished(self) -> dict[str, Any] | None:
    """Returns the result if the run is done to its full length."""
    try:
      result = json.loads(storage.read(self.workdir / 'result.json') or b'')
      return result if result['steps'] == self.total_steps else None
    except (ValueError, KeyError, TypeError):
      return None  # None there, or a damaged one, which is made anew.

  def restore_or_init(self) -> session_lib.Session:
    """Returns the session to train on, and opens the files of the workdir.

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
      saved = restored[1]
      state = self.experiment.with_given(restored[0])
      progress = Progress(**saved['progress'])
      progress.resumed_from.append(progress.step)
      if processes.is_first():
        print(f'resuming {self.workdir} from step {progress.step}', flush=True)
    elif state is None:
      state = self._fresh_state(self._older())
    files = self._open_files(self._checkpoints, progress)
    return session_lib.Session(
      self.experiment, files, self._programs, state, progress
    )

  def _open_files(
    self, checkpoints: checkpoint.Checkpoints, progress: Progress
  ) -> session_lib.Files:
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
    return session_lib.Files(self._folder, checkpoints, self._metric_log)

  def _plan_memory(self, shapes: TrainState) -> None:
    """Prints what will be held in memory.

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

  def close(self) -> None:
    """Waits for the save under way, closes the files, leaves the workdir."""
    with contextlib.ExitStack() as stack:
      stack.callback(self._folder.release)
      for part in (self._checkpoints, self._metric_log):
        if part is not None:
          stack.callback(part.close)
