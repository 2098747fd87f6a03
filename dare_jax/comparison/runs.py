"""The runs of a comparison, one after the other, each in a fresh process.

Whatever happens here can happen again: finished runs are kept, others resume.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any

from dare_jax import cli
from dare_jax import errors
from dare_jax import locks
from dare_jax import signals
from dare_jax import storage
from dare_jax.comparison import plan
from dare_jax.comparison import progress

TRAIN = (sys.executable, '-m', 'dare_jax.train')
CHECK = (sys.executable, '-m', 'dare_jax.comparison.checks')


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a run: its result, or the reason why it has none."""

  result: dict[str, Any] | None
  reason: str | None = None


class Stop:
  """Takes SIGTERM and SIGINT; the run under way gets SIGTERM, and saves."""

  def __init__(self) -> None:
    self.requested = False
    self.name = ''
    self._process: subprocess.Popen | None = None

  def install(self) -> None:
    """Takes the signals over; a second Ctrl-C ends the run, too."""
    signals.install(self._handle)
    signals.at_once.append(self._kill)

  def _kill(self) -> None:
    if self._process is not None:
      self._process.kill()

  def _handle(self, number: int) -> None:
    self.name = signal.Signals(number).name
    self.requested = True
    self._pass_on()

  def _pass_on(self) -> None:
    if self.requested and self._process is not None:
      self._process.send_signal(signal.SIGTERM)

  @contextlib.contextmanager
  def passed_to(self, process: subprocess.Popen) -> Iterator[None]:
    self._process = process
    self._pass_on()  # It may have come before there was a process.
    try:
      yield
    finally:
      self._process = None

  def check(self, what: str = 'no run was under way') -> None:
    """Raises Stopped if a signal has come."""
    if self.requested:
      raise errors.Stopped(f'by {self.name}: {what}')


def run_all(
  runs: Sequence[plan.PlannedRun],
  arguments: Sequence[str],
  output: pathlib.Path,
  stop: Stop,
  on_change: Callable[[dict[pathlib.Path, Outcome]], None],
) -> dict[pathlib.Path, Outcome]:
  """Brings every run to its end; returns workdir -> outcome.

  Args:
    runs: what to run.
    arguments: of `train`, the same for all: the config and its overrides.
    output: the comparison's folder.
    stop: the signals.
    on_change: called with the outcomes so far, at first and after each run.

  Raises:
    Stopped: a signal came; the run under way has saved its state.
    UsageError: another comparison is at work there, the folder cannot be
      written, or a model does not fit the data.
  """
  outcomes: dict[pathlib.Path, Outcome] = {}
  try:
    (output / 'runs').mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UsageError(
      f'--output={output}: cannot be written ({error.strerror}); choose'
      ' another folder.'
    ) from None
  with _alone(output, stop) as inherited:
    for run in runs:
      if run.is_finished():
        outcomes[run.workdir] = Outcome(run.result())
    left = [run for run in runs if run.workdir not in outcomes]
    _check(left, arguments, stop, inherited)
    on_change(outcomes)
    with contextlib.closing(
      progress.Progress(len(runs), len(outcomes))
    ) as shown:
      for number, run in enumerate(runs, 1):
        stop.check()
        if run.workdir in outcomes:
          continue
        shown.start(number, run.name)
        outcome = _run(run, arguments, stop, inherited, shown)
        outcomes[run.workdir] = outcome
        shown.end(_describe(outcome))
        on_change(outcomes)
  return outcomes


@contextlib.contextmanager
def _alone(output: pathlib.Path, stop: Stop) -> Iterator[list[int]]:
  """Holds the folder's lock; yields its file, for the runs to inherit.

  So the lock outlives a comparison that was killed. The run that this one
  leaves behind ends at its next line of output, which nobody reads any more.

  Raises:
    UsageError: another comparison holds it, or it cannot be written.
  """
  path = storage.locate(output / 'runs' / 'lock')
  told = False
  while True:
    try:
      with storage.told(path):
        lock = locks.Lock(path)
      break
    except locks.HeldError as error:
      holder = error.holder
      if holder is None or not holder.has_ended:
        raise errors.UsageError(
          f'--output={output}: {locks.describe(holder)}, is comparing there;'
          ' let it end, or stop it (SIGTERM, which saves), or choose another'
          ' --output.'
        ) from None
    except locks.UnsupportedError:  # Each run guards its own folder.
      yield []
      return
    if not told:
      print(
        f'waiting for a run in {path.parent} that a comparison'
        f' ({holder}), now ended, has left behind',
        file=sys.stderr,
        flush=True,
      )
      told = True
    stop.check()
    time.sleep(0.1)
  try:
    yield [lock.fileno()]
  finally:
    lock.release()


def _check(
  runs: Sequence[plan.PlannedRun],
  arguments: Sequence[str],
  stop: Stop,
  inherited: Sequence[int],
) -> None:
  """Checks the models of runs that have not begun against the data.

  A process of its own does it, which gives the devices back: the runs need
  them. It prepares the data, if that is yet to be done.

  Raises:
    UsageError: one of the runs would fail before its first step.
  """
  fresh = [run for run in runs if not run.has_begun()]
  if not fresh:
    return
  labels = dict.fromkeys(run.variant for run in fresh)
  models = ','.join(variant.entry for variant in labels)
  command = [*CHECK, *arguments, f'--models={models}']

  def show(line: str) -> None:
    if not line.startswith('error: '):
      print(line, end='', file=sys.stderr, flush=True)

  code, lines = _process(command, stop, inherited, show)
  stop.check()
  if code:
    raise errors.UsageError(_reason(code, lines))


def _run(
  run: plan.PlannedRun,
  arguments: Sequence[str],
  stop: Stop,
  inherited: Sequence[int],
  shown: progress.Progress,
) -> Outcome:
  command = [*TRAIN, *arguments, *run.variant.flags(run.seed)]
  command.append(f'--workdir={run.workdir}')
  with storage.told(storage.locate(run.log)):
    log = run.log.open('a')

  def take(line: str) -> None:
    log.write(line)
    log.flush()
    shown.line(line.rstrip())

  with log:
    code, lines = _process(command, stop, inherited, take)
  if code == cli.EXIT_STOPPED:
    stop.check(f'{run.name} is saved')
    raise errors.Stopped(f'by SIGTERM: {run.name} is saved')
  if code == 0 and (result := run.result()) is not None:
    return Outcome(result)
  stop.check(f'{run.name} is saved up to its last checkpoint')
  return Outcome(None, _reason(code, lines))


def _process(
  command: Sequence[str],
  stop: Stop,
  inherited: Sequence[int],
  on_line: Callable[[str], None],
) -> tuple[int, collections.deque[str]]:
  """Returns the exit code of a command and the last lines that it printed."""
  lines: collections.deque[str] = collections.deque(maxlen=200)
  # In a process group of its own: Ctrl-C is for us, and we pass SIGTERM.
  process = subprocess.Popen(
    command,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors='replace',
    pass_fds=inherited,
    process_group=0,
  )
  with process, stop.passed_to(process):
    assert process.stdout is not None
    for line in process.stdout:
      lines.append(line)
      on_line(line)
  return process.returncode, lines


def _reason(code: int, lines: Iterable[str]) -> str:
  """The line of a failed run's output that says most."""
  if code < 0:
    return f'killed by {signal.Signals(-code).name}'
  raised = r'((?:\w+\.)*\w*(?:Error|Exception)\b.*)'
  for pattern in (r'error: (.+)', raised, r'(.+)'):
    for line in reversed([*lines]):
      if (match := re.fullmatch(pattern, line.strip())) is not None:
        return match[1]
  return f'exit code {code}'


def _describe(outcome: Outcome) -> str:
  if outcome.result is None:
    return f'failed: {outcome.reason}'
  test = outcome.result['test']
  for name, label in (('auc', 'AUC'), ('logloss', 'logloss')):
    if name in test:
      return f'done, test {label} {test[name]:.4f}'
  return 'done'
