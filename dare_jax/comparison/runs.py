"""The runs of a comparison, one after the other, each in a fresh process.

Whatever happens here can happen again: finished runs are kept, others resume.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import pathlib
import re
import sys
from typing import Any

from dare_jax import cli
from dare_jax import errors
from dare_jax import storage
from dare_jax.comparison import children
from dare_jax.comparison import plan
from dare_jax.comparison import progress

TRAIN = (sys.executable, '-m', 'dare_jax.train')
CHECK = (sys.executable, '-m', 'dare_jax.comparison.checks')


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a run: its result, or the reason why it has none."""

  result: dict[str, Any] | None
  reason: str | None = None


def run_all(
  runs: Sequence[plan.PlannedRun],
  arguments: Sequence[str],
  output: pathlib.Path,
  stop: children.Stop,
  on_change: Callable[[dict[pathlib.Path, Outcome]], None],
) -> dict[pathlib.Path, Outcome]:
  """Brings every run to its end; returns workdir -> outcome.

  Args:
    runs: the runs to make.
    arguments: the arguments of `train` that all runs share: the config and its
      overrides.
    output: the comparison's folder.
    stop: the signals that end the comparison.
    on_change: called with the outcomes so far, at first and after each run.

  Raises:
    Stopped: a signal came; the run under way has saved its state.
    UsageError: another comparison is at work there, the folder cannot be
      written, or a model does not fit the data.
  """
  outcomes: dict[pathlib.Path, Outcome] = {}
  with children.alone(output, stop, 'comparing') as inherited:
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
        take = functools.partial(shown.line, number)
        outcome = _run(run, arguments, stop, inherited, take)
        outcomes[run.workdir] = outcome
        shown.end(number, _describe(outcome))
        on_change(outcomes)
  return outcomes


def _check(
  runs: Sequence[plan.PlannedRun],
  arguments: Sequence[str],
  stop: children.Stop,
  inherited: Sequence[int],
) -> None:
  """Checks the models of runs that have not begun, if there are any."""
  fresh = [run for run in runs if not run.has_begun()]
  if not fresh:
    return
  labels = dict.fromkeys(run.variant for run in fresh)
  check([variant.entry for variant in labels], arguments, stop, inherited)


def check(
  entries: Sequence[str],
  arguments: Sequence[str],
  stop: children.Stop,
  inherited: Sequence[int],
) -> None:
  """Checks models against the data; prepares them, if that is to be done yet.

  A process of its own does it, which gives the devices back: the runs need
  them.

  Args:
    entries: the models, as `--models` of `compare` has them.
    arguments: the arguments of `train`: the config and its overrides.
    stop: the signals that end the check.
    inherited: open files that the process keeps open.

  Raises:
    UsageError: a run would fail before its first step.
  """
  command = [*CHECK, *arguments, f'--models={",".join(entries)}']

  def show(line: str) -> None:
    if not line.startswith('error: '):
      print(line, end='', file=sys.stderr, flush=True)

  code, lines = children.run(command, stop, inherited, show)
  stop.check()
  if code:
    raise errors.UsageError(children.reason(code, lines))


def _run(
  run: plan.PlannedRun,
  arguments: Sequence[str],
  stop: children.Stop,
  inherited: Sequence[int],
  on_line: Callable[[str], None],
) -> Outcome:
  command = [*TRAIN, *arguments, *run.variant.flags(run.seed)]
  command.append(f'--workdir={run.workdir}')
  with storage.told(storage.locate(run.log)):
    log = run.log.open('a')

  def take(line: str) -> None:
    log.write(line)
    log.flush()
    on_line(line.rstrip())

  with log:
    code, lines = children.run(command, stop, inherited, take)
  if code == cli.EXIT_STOPPED:
    left = f'{run.name}: {_what_is_left(lines)}'
    stop.check(left)
    raise errors.Stopped(f'by SIGTERM: {left}')
  if code == 0 and (result := run.result()) is not None:
    return Outcome(result)
  stop.check(f'{run.name} is saved up to its last checkpoint')
  return Outcome(None, children.reason(code, lines))


def _what_is_left(lines: Iterable[str]) -> str:
  """Returns what a stopped training says it has kept.

  >>> _what_is_left(['stopped by SIGINT: it is saved; run the same command'])
  'it is saved'
  """
  for line in reversed([*lines]):
    if (match := re.match(r'stopped by \w+: (.+);', line)) is not None:
      return match[1]
  return 'it has stopped'


def _describe(outcome: Outcome) -> str:
  if outcome.result is None:
    return f'failed: {outcome.reason}'
  test = outcome.result['test']
  for name, label in (('auc', 'AUC'), ('logloss', 'logloss')):
    if name in test:
      return f'done, test {label} {test[name]:.4f}'
  return 'done'
