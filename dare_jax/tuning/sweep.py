"""The trials of a sweep, each an ordinary run in a fresh process.

Whatever happens here can happen again: what a killed sweep has left goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import dataclasses
import json
import pathlib
import queue
import subprocess
import threading
from typing import Any

import ml_collections
import optuna

from dare_jax import cli
from dare_jax import errors
from dare_jax import storage
from dare_jax.comparison import children
from dare_jax.comparison import plan
from dare_jax.comparison import progress
from dare_jax.comparison import runs as runs_lib
from dare_jax.runs import workdir as workdir_lib
from dare_jax.tuning import space
from dare_jax.tuning import study as study_lib

State = study_lib.State


@dataclasses.dataclass
class Run:
  """A trial under way.

  Attributes:
    trial: the trial, as Optuna keeps it.
    values: field -> value that was chosen.
    workdir: the folder of its run.
    process: the training; None: not started yet.
    pruned: whether it was told to stop, as it is worse than others were.
    total: steps of the training; None: it has not said yet.
    reason: why it cannot have a value; None: nothing is known.
  """

  trial: optuna.Trial
  values: dict[str, Any]
  workdir: pathlib.Path
  process: subprocess.Popen | None = None
  pruned: bool = False
  total: int | None = None
  reason: str | None = None

  @property
  def number(self) -> int:
    return self.trial.number

  @property
  def log(self) -> pathlib.Path:
    """What its process prints."""
    return self.workdir.with_name(f'{self.workdir.name}.log')


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a sweep runs.

  Attributes:
    config: the config of all trials, apart from the fields that are chosen.
    arguments: the arguments of `train` that all trials share: the config and
      its overrides.
    output: the folder of the sweep; the runs lie in `runs/trial-<number>` of
      it.
    trials: number of trials that are to end.
    parallel: number of trials that run at a time.
  """

  config: ml_collections.ConfigDict
  arguments: Sequence[str]
  output: pathlib.Path
  trials: int
  parallel: int = 1

  def workdir(self, number: int) -> pathlib.Path:
    """Returns the folder of a trial's run."""
    return self.output / 'runs' / f'trial-{number:04d}'


def flags(values: dict[str, Any]) -> list[str]:
  """Returns what makes a `train` command that of a trial.

  >>> flags({'optim.l2': 0.1, 'model.plan': None})
  ['--config.optim.l2=0.1', '--config.model.plan=None']
  """
  return [f'--config.{name}={space.text(v)}' for name, v in values.items()]


class Sweep:
  """Draws trials and runs them; all but the reading is in one thread."""

  def __init__(
    self,
    planned: Plan,
    study: study_lib.Study,
    stop: children.Stop,
    inherited: Sequence[int],
  ) -> None:
    """Starts nothing yet.

    Args:
      planned: the trials to run.
      study: the trials, those of an earlier start included.
      stop: the signals that end the sweep.
      inherited: open files that the runs keep open.
    """
    self._plan = planned
    self._study = study
    self._stop = stop
    self._inherited = inherited
    # The number of a trial, and a line; or its exit code and last lines.
    self._events: queue.Queue[tuple[int, Any]] = queue.Queue()
    self._active: dict[int, Run] = {}
    self._threads: list[threading.Thread] = []

  def run(self, on_end: Callable[[], None]) -> None:
    """Brings trials to their end until there are as many as planned.

    Args:
      on_end: called after each trial, and before the first.

    Raises:
      Stopped: a signal came; the trials under way have saved their state.
    """
    ended = self._study.count_ended()
    on_end()
    left = self._study.begun()
    with contextlib.closing(
      progress.Progress(max(ended, self._plan.trials), ended, 'trials')
    ) as shown:
      try:
        while True:
          self._fill(left, shown, on_end)
          if not self._active:
            break
          number, event = self._events.get()
          if isinstance(event, str):
            self._take_line(self._active[number], event, shown)
          else:
            code, lines = event
            self._end(self._active.pop(number), code, lines, shown)
            on_end()
        self._stop.check('the trials under way are saved')
      finally:
        if self._active:  # After any other error, no run may be left behind.
          self._stop.request()
        for thread in self._threads:
          thread.join()

  def _fill(
    self,
    left: list[optuna.Trial],
    shown: progress.Progress,
    on_end: Callable[[], None],
  ) -> None:
    """Starts trials while there is room for one more."""
    while not self._stop.requested and len(self._active) < self._plan.parallel:
      under_way = self._study.count_ended() + len(self._active)
      if not left and under_way >= self._plan.trials:
        return
      trial = left.pop(0) if left else self._study.draw()
      values = self._study.values(trial)
      run = Run(trial, values, self._plan.workdir(trial.number))
      told = ', '.join(f'{k}={_short(v)}' for k, v in values.items())
      shown.start(run.number + 1, told)
      if self._begin(run):
        self._active[run.number] = run
      else:
        self._end(run, 0, [], shown)
        on_end()

  def _begin(self, run: Run) -> bool:
    """Starts the run of a trial; False: it is over as it is."""
    config = space.apply(self._plan.config, run.values)
    try:
      space.check(config)
      workdir_lib.check_same_run(config, storage.locate(run.workdir))
    except errors.UsageError as error:
      run.reason = str(error)
      return False
    run.pruned = self._study.report(run.trial, self._validations(run))
    if run.pruned or plan.read_result(run.workdir) is not None:
      return False
    with storage.told(storage.locate(run.log)):
      log = run.log.open('a')
    command = [*runs_lib.TRAIN, *self._plan.arguments, *flags(run.values)]
    command.append(f'--workdir={run.workdir}')
    thread = threading.Thread(
      target=self._read, args=(run, command, log), name=run.workdir.name
    )
    self._threads.append(thread)
    thread.start()
    return True

  def _read(self, run: Run, command: Sequence[str], log: Any) -> None:
    """Passes what a run prints on to the one that decides; in a thread."""

    def take(line: str) -> None:
      log.write(line)
      log.flush()
      self._events.put((run.number, line.rstrip()))

    def started(process: subprocess.Popen) -> None:
      run.process = process

    found: tuple[int, Sequence[str]] = (1, ['error: could not be started'])
    try:
      with log:
        found = children.run(
          command, self._stop, self._inherited, take, started
        )
    except OSError as error:
      found = (1, [f'error: {error}'])
    finally:
      self._events.put((run.number, found))

  def _take_line(self, run: Run, line: str, shown: progress.Progress) -> None:
    shown.line(run.number + 1, line)
    if (steps := progress.steps_of(line)) is None:
      return
    run.total = steps[1]
    if run.pruned or self._stop.requested or 'val/' not in line:
      return
    found = self._validations(run)
    is_worse = self._study.report(run.trial, found)
    # At the last step there is nothing left to save.
    if is_worse and max(found, default=0) < run.total and run.process:
      run.pruned = True
      run.process.terminate()

  def _validations(self, run: Run) -> dict[int, float]:
    """Returns step -> the metric, from the lines of `metrics.jsonl`."""
    content = storage.read(storage.locate(run.workdir / 'metrics.jsonl')) or b''
    found = {}
    for line in content.splitlines():
      try:
        values = json.loads(line)
      except ValueError:
        continue  # The last one may be half written.
      value = values.get(f'val/{self._study.choice.metric}')
      if value is not None:
        found[int(values['step'])] = float(value)
    return found

  def _end(
    self,
    run: Run,
    code: int,
    lines: Sequence[str],
    shown: progress.Progress,
  ) -> None:
    """Writes down how a trial ended; one that was stopped stays begun."""
    metric, tell = self._study.choice.metric, self._study.end
    result = plan.read_result(run.workdir) if code == 0 else None
    value = None if result is None else result['val'].get(metric)
    found = self._validations(run)
    if result is not None and value is None:
      run.reason = f'its validation has no {metric}'
    if run.reason is None and value is not None:
      self._study.report(run.trial, found)
      tell(run.trial, State.COMPLETE, value)
      text = f'done, val/{metric} {value:.4f}'
    elif run.pruned:
      tell(run.trial, State.PRUNED)
      text = f'given up at step {max(found, default=0)}: worse than the others'
    elif code and (self._stop.requested or code == cli.EXIT_STOPPED):
      if not self._stop.requested:
        self._stop.request()
      return
    else:
      reason = run.reason or children.reason(code, lines)
      tell(run.trial, State.FAIL, reason=reason)
      text = f'failed: {reason}'
    shown.end(run.number + 1, text)


def _short(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else space.text(value)
