"""Trials of the fault campaign: one training each, hurt, then compared."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import time
from typing import Any

import numpy as np

from tests.campaign import lives

# What may differ from a training that was left alone.
_CLOCK_METRICS = ('time_s', 'train/examples_per_s')
_CLOCK_RESULTS = (
  'examples_per_s',
  'train_time_s',
  'resumed_from',
  'environment',
  'config_hash',  # Which folder the data is in is a part of it.
)
_PLACES = ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2))
# Sums in another order: Adam makes more of it with every step.
_MOVED_TOLERANCE = 0.02
_STOPPED_LINES = 17


@dataclasses.dataclass
class Record:
  """What became of a trial.

  Attributes:
    hits: faults that it suffered.
    lost_steps: steps done again that a complete checkpoint held.
    refusals: lives that ended in one clear line of error.
    outcome: 'same' as a training left alone; 'refused', in one clear line; or
      what went wrong.
  """

  hits: int = 0
  lost_steps: int = 0
  refusals: int = 0
  outcome: str = 'same'


@dataclasses.dataclass(frozen=True)
class Bench:
  """Where trials happen.

  Attributes:
    folder: of the campaign.
    flags: of the training.
    workdir: of one trial.
  """

  folder: pathlib.Path
  flags: Sequence[str]
  workdir: pathlib.Path = pathlib.Path()

  def of(self, name: str) -> Bench:
    """Returns the same with a fresh workdir."""
    workdir = self.folder / name / 'run'
    shutil.rmtree(workdir.parent, ignore_errors=True)
    workdir.parent.mkdir()
    return dataclasses.replace(self, workdir=workdir)

  def start(self, processes: int = 1, devices: int = 1) -> lives.Start:
    return lives.Start(self.flags, self.workdir, processes, devices)

  def prepare(self, compared: Iterable[int], resumed: Iterable[int]) -> None:
    """Makes what trials compare with, or begin from, if it is not there.

    Args:
      compared: of how many processes a training left alone is needed.
      resumed: and a stopped one.
    """
    made: list[tuple[pathlib.Path, int, Hurt | None]] = [
      (self.reference(count), count, None) for count in compared
    ]
    made += [
      (path, count, Hurt(path, _after_lines(_STOPPED_LINES)))
      for count in resumed
      for path in [self.stopped(count)]
    ]
    for path, count, hurt in made:
      if (path.parent / 'made').exists():
        continue
      shutil.rmtree(path.parent, ignore_errors=True)
      path.parent.mkdir()
      start = dataclasses.replace(self, workdir=path).start(count)
      end = lives.live(start, hurt)
      if not (end.stopped if hurt else end.finished):
        raise RuntimeError(f'{path}: {end.codes}: {end.err}')
      (path.parent / 'made').touch()

  def reference(self, processes: int) -> pathlib.Path:
    return self.folder / f'reference-{processes}' / 'run'

  def stopped(self, processes: int) -> pathlib.Path:
    return self.folder / f'stopped-{processes}' / 'run'

  def difference(self, processes: int) -> str:
    """Returns how the workdir differs from the reference; '' if it does not."""
    other = self.reference(processes)
    for name, read in (('metrics.jsonl', _lines), ('result.json', _result)):
      if read(self.workdir / name) != read(other / name):
        return f'another {name}'
    name = 'predictions_test.npz'
    with np.load(self.workdir / name) as mine, np.load(other / name) as theirs:
      if any(mine[key].tobytes() != theirs[key].tobytes() for key in theirs):
        return 'other predictions'
    return ''


Trial = Callable[[Bench, np.random.Generator], Record]


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  return [
    _without(json.loads(line), _CLOCK_METRICS)
    for line in path.read_text().splitlines()
  ]


def _result(path: pathlib.Path) -> dict[str, Any]:
  return _without(json.loads(path.read_text()), _CLOCK_RESULTS)


def _without(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
  return {name: value for name, value in values.items() if name not in names}


# Moments: functions of (workdir, seconds so far) that say when it is time.
Moment = Callable[[pathlib.Path, float], bool]


def _after_lines(count: int, known: int = 0) -> Moment:
  """So many lines of metrics after the first `known`."""

  def is_time(workdir: pathlib.Path, unused_seconds: float) -> bool:
    return _count_lines(workdir) >= known + count

  return is_time


def _count_lines(workdir: pathlib.Path) -> int:
  try:
    return (workdir / 'metrics.jsonl').read_bytes().count(b'\n')
  except OSError:
    return 0


def _in_a_save(delay: float, skip: int) -> Moment:
  """A while after a save has begun, not the first `skip` of them."""
  seen: dict[pathlib.Path, float] = {}

  def is_time(workdir: pathlib.Path, seconds: float) -> bool:
    for path in workdir.glob('checkpoints/*/*.orbax-checkpoint-tmp'):
      seen.setdefault(path, seconds)
    begun = list(seen.values())[skip:]
    return bool(begun) and seconds >= begun[0] + delay

  return is_time


def moment(rng: np.random.Generator, workdir: pathlib.Path) -> Moment:
  """Draws a moment: of the clock, after some metrics, or in a save."""
  kind = rng.integers(4)
  if kind == 0:
    at = rng.uniform(0, 8.0)
    return lambda unused_workdir, seconds: seconds >= at
  if kind == 1:
    return _after_lines(int(rng.integers(1, 5)), _count_lines(workdir))
  return _in_a_save(rng.uniform(0, 0.06), int(rng.integers(3)))


@dataclasses.dataclass
class Hurt:
  """Sends a signal at a moment; to be called as `lives.live` says."""

  workdir: pathlib.Path
  is_time: Moment
  number: int = signal.SIGTERM
  victim: int = 0
  happened: bool = False

  def __call__(self, pids: list[int], seconds: float) -> bool:
    if not self.is_time(self.workdir, seconds):
      return False
    self.strike(pids[self.victim % len(pids)])
    self.happened = True
    return True

  def strike(self, pid: int) -> None:
    os.kill(pid, self.number)


def newest(workdir: pathlib.Path) -> int:
  names = [path.name for path in workdir.glob('checkpoints/last/*')]
  return max((int(name) for name in names if name.isdigit()), default=0)


class Story:
  """The lives of a trial, one after the other."""

  def __init__(self, bench: Bench, hits: int = 0) -> None:
    self.bench = bench
    self.record = Record(hits)
    self._newest = newest(bench.workdir)

  def live(self, start: lives.Start, hurt: Hurt | None = None) -> lives.End:
    end = lives.live(start, hurt)
    if end.resumed_at is not None:
      self.record.lost_steps += max(0, self._newest - end.resumed_at)
    self._newest = newest(self.bench.workdir)
    self.record.refusals += end.refused
    if hurt is not None and hurt.happened:
      self.record.hits += 1
    if end.hung:
      self.fail(f'hung: {end.err[-300:]}')
    return end

  def fail(self, why: str) -> None:
    if self.record.outcome == 'same':
      self.record.outcome = why

  def expect(self, is_fine: bool, end: lives.End) -> None:
    """Fails unless a life ended as it may."""
    if not is_fine:
      self.fail(f'codes {end.codes}: {end.err[-500:]}')

  def compare(self, end: lives.End, processes: int | None) -> None:
    """Fails unless a life was the last, and left what one left alone does."""
    self.expect(end.finished, end)
    if not end.finished or processes is None:
      return
    if why := self.bench.difference(processes):
      self.fail(why)

  def finish(self, start: lives.Start, processes: int | None) -> Record:
    """Lives once more, undisturbed, to the end, and compares it."""
    self.compare(self.live(start), processes)
    return self.record


def killed(sigterm: bool, processes: int, hits: int) -> Trial:
  """Signals to one process, each in a life of its own."""
  number = signal.SIGTERM if sigterm else signal.SIGKILL

  def trial(bench: Bench, rng: np.random.Generator) -> Record:
    story, start = Story(bench), bench.start(processes)
    while story.record.hits < hits:
      hurt = Hurt(
        bench.workdir,
        moment(rng, bench.workdir),
        number,
        int(rng.integers(processes)),
      )
      end = story.live(start, hurt)
      if not hurt.happened and end.finished:
        story.compare(end, processes)
        shutil.rmtree(bench.workdir)  # Finished first: another training.
        story = _again(story)
      elif sigterm:
        story.expect(end.stopped or end.finished or _unborn(end), end)
    return story.finish(start, processes)

  return trial


def _unborn(end: lives.End) -> bool:
  """Whether SIGTERM came before Python had reached our code."""
  return -signal.SIGTERM in end.codes and not end.out


def _again(story: Story) -> Story:
  made = Story(story.bench)
  made.record = story.record
  return made


def moved(hits: int) -> Trial:
  """Stopped, then gone on with other devices or processes, again and again.

  Sums are then made in another order, so metrics agree but for a little.
  """

  def trial(bench: Bench, rng: np.random.Generator) -> Record:
    story, place = Story(bench), (1, 1)
    for _ in range(hits):
      lines = _count_lines(bench.workdir)
      moment = _after_lines(int(rng.integers(2, 7)), lines)
      end = story.live(bench.start(*place), Hurt(bench.workdir, moment))
      story.expect(end.stopped or end.finished, end)
      others = [other for other in _PLACES if other != place]
      place = others[int(rng.integers(len(others)))]
    record = story.finish(bench.start(*place), None)
    if record.outcome == 'same':
      record.outcome = _moved_difference(bench) or 'same'
    return record

  return trial


def _moved_difference(bench: Bench) -> str:
  mine, theirs = (
    _lines(path / 'metrics.jsonl')
    for path in (bench.workdir, bench.reference(1))
  )
  if [(line['step'], [*line]) for line in mine] != [
    (line['step'], [*line]) for line in theirs
  ]:
    return 'a gap or a repeat in metrics.jsonl'
  most = max(
    abs(a['train/loss'] - b['train/loss'])
    for a, b in zip(mine, theirs, strict=True)
    if 'train/loss' in a
  )
  return '' if most < _MOVED_TOLERANCE else f'a loss that is off by {most:.3g}'


def clock_backwards(bench: Bench, rng: np.random.Generator) -> Record:
  """Each life begins an hour earlier, and its clock jumps back as it runs."""
  story = Story(bench)
  for life in range(3):
    calls, real = [0], time.time

    def clock(life: int = life, calls: list[int] = calls, real: Any = real):
      calls[0] += 1
      return real() - 3600 * life - 10 * (calls[0] // 20)

    start = dataclasses.replace(bench.start(), clock=clock)
    if life == 2:
      story.record.hits += 1
      return story.finish(start, 1)
    lines = _count_lines(bench.workdir)
    moment = _after_lines(int(rng.integers(2, 12)), lines)
    story.live(start, Hurt(bench.workdir, moment, signal.SIGKILL))
  raise AssertionError('the third life returns')
