"""The parts of the check, and how one of them runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib
from dare_jax.device_check import stand_in

# Seconds of each part where the whole check has ten minutes, in order. What a
# part leaves over goes to those after it.
SECONDS = {
  'machine': 30,
  'answers': 70,
  'parity': 80,
  'kernels': 100,
  'training': 220,
  'serving': 50,
  'peer': 50,
}
_ALL = 600
# A part knows its time; it is killed if it hangs.
_GRACE = 5.0
_FLAGS = {
  # A training repeats bit for bit where no sum's order is left open.
  'answers': '--xla_gpu_deterministic_ops=true',
}


@dataclasses.dataclass(frozen=True)
class Ended:
  """How a part ended: done, failed, or out of time; a reason if not done."""

  part: str
  status: str
  seconds: float
  reason: str = ''


def run(
  names: list[str],
  minutes: float,
  small: bool,
  checkout: str | None,
  rows: pathlib.Path,
  after: Callable[[list[Ended]], None],
) -> list[Ended]:
  """Runs parts one after the other; none keeps the others from running.

  Args:
    names: the names of the parts.
    minutes: time for all parts together; each part has a share of it.
    small: sizes that a CPU can do.
    checkout: folder of the official code, if any.
    rows: a file that takes the rows.
    after: called with what has ended, after each part.
  """
  rows.touch()
  end = time.time()
  ended: list[Ended] = []
  for name in names:
    end += SECONDS[name] * minutes * 60 / _ALL
    ended.append(_run_one(name, end, small, checkout, rows))
    after(ended)
  return ended


def _run_one(
  name: str,
  end: float,
  small: bool,
  checkout: str | None,
  rows: pathlib.Path,
) -> Ended:
  begin = time.time()
  given = json.dumps([name, end, small, checkout, str(rows)])
  environment = dict(os.environ)
  environment.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.92')
  if name in _FLAGS:
    flags = environment.get('XLA_FLAGS', '')
    environment['XLA_FLAGS'] = f'{flags} {_FLAGS[name]}'.strip()
  process = subprocess.Popen(_command(given), env=environment)
  try:
    code = process.wait(max(1.0, end + _GRACE - begin))
  except subprocess.TimeoutExpired:
    return Ended(name, 'out of time', time.time() - begin, 'it was stopped')
  finally:
    process.kill()
    process.wait()
  taken = time.time() - begin
  if code:
    return Ended(name, 'failed', taken, f'it ended with code {code}')
  failed = [
    row['case']
    for row in reporting.read(rows)
    if row['part'] == name and row['passed'] is False
  ]
  if failed:
    return Ended(name, 'failed', taken, '; '.join(dict.fromkeys(failed)))
  return Ended(name, 'done', taken)


def _command(given: str) -> list[str]:
  return [sys.executable, '-m', 'dare_jax.device_check.parts', given]


def _child(
  name: str, end: float, small: bool, checkout: str | None, rows: str
) -> None:
  """Runs one part here."""
  stand_in.for_annotations()
  module = importlib.import_module(f'dare_jax.device_check.{name}')
  report = reporting.Report(pathlib.Path(rows), name, end)
  sizes = sizes_lib.SMALL if small else sizes_lib.Sizes()
  options: dict[str, Any] = {}
  if name == 'peer':
    options['checkout'] = checkout
  module.run(sizes, report, **options)


if __name__ == '__main__':
  _child(*json.loads(sys.argv[1]))
