"""Runs in fresh processes: who may start them, what ends them, what they say.

Whatever happens here can happen again: finished runs are kept, others resume.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import time

from dare_jax import errors
from dare_jax import storage
from dare_jax.process import locks
from dare_jax.process import signals


class Stop:
  """Takes SIGTERM and SIGINT; runs under way get SIGTERM, and save."""

  def __init__(self) -> None:
    self.requested = False
    self.name = ''
    self._processes: set[subprocess.Popen] = set()

  def install(self) -> None:
    """Takes the signals over; a second Ctrl-C ends the runs, too."""
    signals.install(self.request)
    signals.at_once.append(self._kill)

  def request(self, number: int = signal.SIGTERM) -> None:
    """Asks the runs under way, and those to come, to save and end."""
    self.name = signal.Signals(number).name
    self.requested = True
    for process in [*self._processes]:
      process.send_signal(signal.SIGTERM)

  def _kill(self) -> None:
    for process in [*self._processes]:
      process.kill()

  @contextlib.contextmanager
  def passed_to(self, process: subprocess.Popen) -> Iterator[None]:
    """Passes signals on to a process while the context is open."""
    self._processes.add(process)
    if self.requested:  # It may have come before there was a process.
      process.send_signal(signal.SIGTERM)
    try:
      yield
    finally:
      self._processes.discard(process)

  def check(self, what: str = 'no run was under way') -> None:
    """Raises Stopped if a signal has come."""
    if self.requested:
      raise errors.Stopped(f'by {self.name}: {what}')


@contextlib.contextmanager
def alone(output: pathlib.Path, stop: Stop, verb: str) -> Iterator[list[int]]:
  """Holds the folder's lock; yields its file, for the runs to inherit.

  So the lock outlives a command that was killed. The run that this one leaves
  behind ends at its next line of output, which nobody reads any more.

  Args:
    output: the command's folder, as `--output` has it.
    stop: ends the wait for such a run.
    verb: what the command does there, as messages say it: 'comparing'.

  Raises:
    UsageError: another command holds it, or it cannot be written.
  """
  path = storage.locate(output / 'runs' / 'lock')
  try:
    (output / 'runs').mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UsageError(
      f'--output={output}: cannot be written ({error.strerror}); choose'
      ' another folder.'
    ) from None
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
          f'--output={output}: {locks.describe(holder)}, is {verb} there;'
          ' let it end, or stop it (SIGTERM, which saves), or choose another'
          ' --output.'
        ) from None
    except locks.UnsupportedError:  # Each run guards its own folder.
      yield []
      return
    if not told:
      print(
        f'waiting for a run in {path.parent} that a command'
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


def run(
  command: Sequence[str],
  stop: Stop,
  inherited: Sequence[int],
  on_line: Callable[[str], None],
  on_start: Callable[[subprocess.Popen], None] = lambda process: None,
) -> tuple[int, collections.deque[str]]:
  """Returns the exit code of a command and the last lines that it printed.

  Args:
    command: the command to run.
    stop: the signals that end it.
    inherited: open files that the process keeps open.
    on_line: called with each line.
    on_start: called with the process, before the first line.
  """
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
    on_start(process)
    assert process.stdout is not None
    for line in process.stdout:
      lines.append(line)
      on_line(line)
  return process.returncode, lines


def reason(code: int, lines: Iterable[str]) -> str:
  """Returns the line of a failed run's output that says most.

  >>> reason(1, ['step 1/2', 'error: optim.l2 is too high'])
  'optim.l2 is too high'
  """
  if code < 0:
    return f'killed by {signal.Signals(-code).name}'
  raised = r'((?:\w+\.)*\w*(?:Error|Exception)\b.*)'
  for pattern in (r'error: (.+)', raised, r'(.+)'):
    for line in reversed([*lines]):
      if (match := re.fullmatch(pattern, line.strip())) is not None:
        return match[1]
  return f'exit code {code}'
