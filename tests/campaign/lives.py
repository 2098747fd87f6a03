"""Lives of one training: started, hurt, watched until they end.

A life is a process that runs what `python -m dare_jax.train` runs. It is forked
from one that has the imports behind it, which saves most of its start.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import importlib
import os
import pathlib
import re
import runpy
import signal
import socket
import sys
import time
import traceback

_PRELOADED = (
  'tensorflow_datasets',
  'dare_jax.logs.builders.synthetic_lifelong',
  'dare_jax.runs.run',
)
_DEADLINE_S = 150.0
# A peer of a process that was killed may wait for it; a cluster ends it then.
_PEERS_S = 5.0
_POLL_S = 0.002
_MOMENT_S = 0.5


@dataclasses.dataclass(frozen=True)
class Start:
  """How a life begins.

  Attributes:
    flags: of `dare_jax.train`.
    workdir: of the run.
    processes: how many train together.
    devices: of each, made from this machine's CPU.
    clock: is asked for the time in place of `time.time`.
    logs: takes what they write; by default a folder beside the workdir.
  """

  flags: Sequence[str]
  workdir: pathlib.Path
  processes: int = 1
  devices: int = 1
  clock: Callable[[], float] | None = None
  logs: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class End:
  """How a life ended.

  Attributes:
    codes: exit codes of its processes, minus the signal for a killed one.
    out: what they wrote to stdout.
    err: and to stderr, one after the other.
    seconds: it took.
    hung: it had to be ended.
  """

  codes: tuple[int, ...]
  out: str
  err: str
  seconds: float
  hung: bool = False

  @property
  def finished(self) -> bool:
    return set(self.codes) == {0}

  @property
  def resumed_at(self) -> int | None:
    """The step at which it says to have gone on."""
    found = re.search(r'^resuming .* from step (\d+)$', self.out, re.M)
    return int(found[1]) if found else None

  @property
  def refused(self) -> bool:
    """Whether it ended by one line of error for each process, no more."""
    errors = re.findall(r'^error: .+$', self.err, re.M)
    return (
      set(self.codes) == {2}
      and len(errors) == len(self.codes)
      and 'Traceback' not in self.err
    )

  @property
  def stopped(self) -> bool:
    """Whether it was stopped by SIGTERM, and says so in one line."""
    return set(self.codes) == {75} and 'Traceback' not in self.err


def preload() -> None:
  """Imports what every life needs, in the process that forks them."""
  for name in _PRELOADED:
    importlib.import_module(name)


def live(
  start: Start, hurt: Callable[[list[int], float], bool] | None = None
) -> End:
  """Runs a life to its end.

  Args:
    start: how it begins.
    hurt: called every few milliseconds with the living processes and the
      seconds so far, until it returns True.
  """
  begin = time.monotonic()
  logs = start.logs or start.workdir.with_name('logs')
  logs.mkdir(parents=True, exist_ok=True)
  where = _where(start.processes)
  names = [logs / str(number) for number in range(start.processes)]
  left = {
    _fork(start, [*start.flags, *where, *_number(start, n)], names[n]): n
    for n in range(start.processes)
  }
  codes: dict[int, int] = {}
  hung, limit, seconds, last = False, _DEADLINE_S, 0.0, begin
  while left:
    # Of a machine that stood still meanwhile, count only a moment.
    now = time.monotonic()
    seconds, last = seconds + min(now - last, _MOMENT_S), now
    for pid in [*left]:
      done, status = os.waitpid(pid, os.WNOHANG)
      if done:
        code = os.waitstatus_to_exitcode(status)
        codes[left.pop(pid)] = code
        if code < 0:
          limit = min(limit, seconds + _PEERS_S)
    if hurt is not None and left and hurt([*left], seconds):
      hurt = None
    if seconds > limit:
      hung = seconds > _DEADLINE_S
      for pid in left:
        os.kill(pid, signal.SIGKILL)
      limit = seconds + _DEADLINE_S
    time.sleep(_POLL_S)
  out, err = (
    ''.join(name.with_suffix(end).read_text(errors='replace') for name in names)
    for end in ('.out', '.err')
  )
  ordered = tuple(codes[number] for number in range(start.processes))
  return End(ordered, out, err, seconds, hung)


def _where(count: int) -> list[str]:
  if count == 1:
    return []
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  return [f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}']


def _number(start: Start, number: int) -> list[str]:
  return [f'--process_id={number}'] if start.processes > 1 else []


def _fork(start: Start, flags: Sequence[str], log: pathlib.Path) -> int:
  pid = os.fork()
  if pid:
    return pid
  code = 1
  try:
    for number, end in ((1, '.out'), (2, '.err')):
      file = os.open(
        log.with_suffix(end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC
      )
      os.dup2(file, number)
    code = _train(start, flags)
  except BaseException:
    traceback.print_exc()
  finally:
    atexit._run_exitfuncs()  # As at a process's end: peers wait for each other.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _train(start: Start, flags: Sequence[str]) -> int:
  """Does in this process what the command does; returns its exit code."""
  os.environ['JAX_PLATFORMS'] = 'cpu'
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")}'
    f' --xla_force_host_platform_device_count={start.devices}'
  )
  if start.clock is not None:
    time.time = start.clock
  sys.argv = ['train', f'--workdir={start.workdir}', *flags]
  try:
    runpy.run_module('dare_jax.train', run_name='__main__', alter_sys=True)
  except SystemExit as end:
    return int(end.code or 0)
  return 0
