"""Faults: trainings killed, moved, damaged, starved, and what became of them.

    python -m tests.campaign --kills=100 --folder=DIR [--seconds=300]

Every trial is a whole training of a small made log, whose end is compared with
that of one that was left alone: metrics, result and predictions, bit for bit
on the same devices. DIR keeps the trials that are done: the same command goes
on with the others, until no `--seconds` are left or all are done.

A trial on a full or read-only disk needs root, to mount a small one. Where only
one process can write no more, it has a limit for the size of files.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import json
import os
import pathlib
import tempfile
import time
from typing import Any

from absl import flags
import numpy as np

from dare_jax import cli
from tests.campaign import disks
from tests.campaign import lives
from tests.campaign import trials

_FIELDS = {
  'data.num_users': 60,
  'data.num_items': 400,
  'data.num_categories': 20,
  'data.events_per_user': 60,
  'data.max_events': 200,
  'data.min_history': 5,
  'data.min_events': 20,
  'data.history_length': 20,
  'model.top_k': 5,
  'model.attention_dim': 4,
  'model.representation_dim': 4,
  'model.hidden': '(8,)',
  'model.aux_hidden': '(8,)',
  'optim.tables': 'lazy_adam',
  'optim.row_sparse_from': 50,
  'train.steps': 120,
  'train.batch_size': 32,
  'train.log_every_steps': 4,
  'eval.every_steps': 40,
  'eval.batch_size': 64,
  'checkpoint.every_steps': 7,
  'runtime.tune_malloc': False,
}
_EACH = 5  # Faults of a training that suffers several.
_FEWEST = 20  # Trainings to be killed, where there are as many kills.


@dataclasses.dataclass(frozen=True)
class Planned:
  """A trial to be done.

  Attributes:
    fault: name of its kind, a row of the table.
    number: within the kind.
    run: does it.
    processes: that train together.
    is_resumed: whether it begins with a stopped training.
  """

  fault: str
  number: int
  run: Callable[[trials.Bench, np.random.Generator], trials.Record]
  processes: int = 1
  is_resumed: bool = False

  @property
  def name(self) -> str:
    return f'{self.fault.replace(" ", "-").replace(",", "")}-{self.number}'


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the campaign."""
  counts = {
    name: flags.DEFINE_integer(name, default, help_, lower_bound=0)
    for name, default, help_ in (
      ('kills', 100, 'Signals, half SIGKILL, half SIGTERM.'),
      ('restarts', 20, 'Times to go on with other devices or processes.'),
      ('damages', 20, 'Files to truncate or to flip a bit in.'),
      (
        'starved',
        10,
        'Trainings on a full or read-only disk; as many where'
        ' one of two processes can write no more.',
      ),
      ('clocks', 3, 'Trainings whose clock goes backwards.'),
    )
  }
  seed = flags.DEFINE_integer('seed', 0, 'Of all that is random.')
  folder = flags.DEFINE_string(
    'folder', None, 'Keeps the trials that are done.'
  )
  seconds = flags.DEFINE_float('seconds', 3600.0, 'Begin no trial after that.')
  at_once = flags.DEFINE_integer('at_once', 2, 'Trials at a time.')

  def measure() -> list[dict[str, Any]]:
    path = pathlib.Path(folder.value or tempfile.mkdtemp()).absolute()
    planned = plan(**{name: flag.value for name, flag in counts.items()})
    return campaign(planned, path, seed.value, seconds.value, at_once.value)

  return measure


def plan(
  kills: int, restarts: int, damages: int, starved: int, clocks: int
) -> list[Planned]:
  """Returns the trials of so many faults of each kind."""
  planned = []

  def add(fault: str, number: int, run: Any, *rest: Any) -> None:
    planned.append(Planned(fault, number, run, *rest))

  each = min(_EACH, max(1, kills // _FEWEST))
  for number in range(-(-kills // each)):
    sigterm, processes = number % 2 == 1, 2 if number % 5 == 2 else 1
    hits = min(each, kills - number * each)
    name = 'SIGTERM' if sigterm else 'SIGKILL'
    also = f', one of {processes} processes' if processes > 1 else ''
    trial = trials.killed(sigterm, processes, hits)
    add(f'{name}{also}', number, trial, processes)
  for number in range(-(-restarts // _EACH)):
    hits = min(_EACH, restarts - number * _EACH)
    add('other devices or processes', number, trials.moved(hits))
  for number in range(damages):
    what = disks.DAMAGED[number % len(disks.DAMAGED)]
    trial = disks.damaged(what)
    is_resumed = not what.in_data
    add(f'damaged {what.name}', number, trial, what.processes, is_resumed)
  if os.geteuid() == 0:
    for number in range(starved):
      processes = 2 if number % 5 > 2 else 1
      also = f', {processes} processes' if processes > 1 else ''
      if number % 2:
        trial = disks.read_only(processes)
        add(f'read-only workdir{also}', number, trial, processes, True)
      else:
        trial = disks.disk_full(processes)
        add(f'disk full{also}', number, trial, processes)
  for number in range(starved):
    add('disk full, for one of 2 processes', number, disks.one_starved, 2)
  for number in range(clocks):
    add('clock going backwards', number, trials.clock_backwards)
  return planned


def campaign(
  planned: list[Planned],
  folder: pathlib.Path,
  seed: int,
  seconds: float,
  at_once: int,
) -> list[dict[str, Any]]:
  """Does the trials that are not done yet; returns a row for each fault.

  Args:
    planned: all of them.
    folder: keeps what they leave, and what became of them.
    seed: of all that is random.
    seconds: no trial begins later.
    at_once: trials at a time, each in a process that starts others.
  """
  deadline = time.monotonic() + seconds
  folder.mkdir(parents=True, exist_ok=True)
  bench = trials.Bench(folder, _flags(folder))
  done = folder / 'trials.jsonl'
  left = [p for p in planned if p.name not in _records(done)]
  if left:
    lives.preload()
    bench.prepare(
      {p.processes for p in left},
      {p.processes for p in left if p.is_resumed},
    )
  workers = []
  for worker in range(at_once):
    pid = os.fork()
    if not pid:
      _work(left[worker::at_once], bench, seed, deadline, done)
    workers.append(pid)
  for pid in workers:
    _, status = os.waitpid(pid, 0)
    if status:
      raise RuntimeError('a worker failed; it has said why')
  records = _records(done)
  return _rows(records[p.name] for p in planned if p.name in records)


def _flags(folder: pathlib.Path) -> list[str]:
  own = {
    'data.data_dir': folder / 'data',
    'runtime.compilation_cache': folder / 'compiled',
  }
  config = cli.configs_dir() / 'synthetic.py'
  fields = [f'--config.{name}={v}' for name, v in (_FIELDS | own).items()]
  return [f'--config={config}', *fields]


def _work(
  planned: Iterable[Planned],
  bench: trials.Bench,
  seed: int,
  deadline: float,
  done: pathlib.Path,
) -> None:
  code = 1
  try:
    for trial in planned:
      if time.monotonic() > deadline:
        break
      rng = np.random.default_rng([seed, *trial.name.encode()])
      begin = time.monotonic()
      record = trial.run(bench.of(trial.name), rng)
      line: dict[str, Any] = {'name': trial.name, 'fault': trial.fault}
      line |= dataclasses.asdict(record)
      line['seconds'] = round(time.monotonic() - begin, 1)
      with done.open('a') as file:
        file.write(json.dumps(line) + '\n')
      print(f'{trial.name}: {record.outcome}', flush=True)
    code = 0
  finally:
    os._exit(code)


def _records(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  if not path.exists():
    return {}
  lines = map(json.loads, path.read_text().splitlines())
  return {line['name']: line for line in lines}


def _rows(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
  rows: dict[str, dict[str, Any]] = {}
  for record in records:
    row = rows.setdefault(
      record['fault'],
      {'fault': record['fault'], 'trainings': 0, 'faults': 0}
      | {'ended_as_if_nothing_was': 0, 'refused_in_one_line': 0}
      | {'lost_steps': 0, 'wrong': 0, 'mean_s': 0.0},
    )
    row['trainings'] += 1
    row['faults'] += record['hits']
    row['ended_as_if_nothing_was'] += record['outcome'] == 'same'
    row['refused_in_one_line'] += record['refusals']
    row['lost_steps'] += record['lost_steps']
    row['wrong'] += record['outcome'] not in ('same', 'refused')
    row['mean_s'] += record['seconds']
  for row in rows.values():
    row['mean_s'] /= row['trainings']
  return sorted(rows.values(), key=lambda row: row['fault'])
