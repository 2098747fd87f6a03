"""Trials of the fault campaign: damaged files, full and read-only disks."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import pathlib
import resource
import shutil
import subprocess
from typing import Any

import numpy as np

from tests.campaign import lives
from tests.campaign import trials


@dataclasses.dataclass(frozen=True)
class Damaged:
  """Files to damage: in the newest checkpoint, the workdir or the data."""

  name: str
  pattern: str
  processes: int = 1
  in_data: bool = False


DAMAGED = (
  Damaged('checkpoint', 'checkpoints/last/NEWEST/state/**/*'),
  Damaged('checkpoint, 2 processes', 'checkpoints/last/NEWEST/**/*', 2),
  Damaged('description', 'checkpoints/last/NEWEST/description/*'),
  Damaged('metrics.jsonl', 'metrics.jsonl'),
  Damaged('store column', 'synthetic_lifelong-*/**/*.npy', in_data=True),
  Damaged('store manifest', 'synthetic_lifelong-*/manifest.json', in_data=True),
  Damaged('config.json', 'config.json'),
)


def damaged(what: Damaged) -> trials.Trial:
  """One file of a stopped training, or of its data, damaged."""

  def trial(bench: trials.Bench, rng: np.random.Generator) -> trials.Record:
    if what.in_data:
      root = bench.workdir.with_name('data')
      shutil.copytree(bench.folder / 'data', root)
      flags = [*bench.flags, f'--config.data.data_dir={root}']
      bench = dataclasses.replace(bench, flags=flags)
    else:
      root = bench.workdir
      shutil.copytree(bench.stopped(what.processes), root)
    pattern = what.pattern.replace('NEWEST', str(trials.newest(bench.workdir)))
    files = [path for path in root.glob(pattern) if path.is_file()]
    files = sorted(path for path in files if path.stat().st_size)
    damage(files[int(rng.integers(len(files)))], rng)
    story = trials.Story(bench, hits=1)
    end = story.live(bench.start(what.processes))
    story.record.lost_steps = 0  # Those of the damaged one cannot be had.
    if end.refused:
      story.record.outcome = 'refused'
    else:
      story.compare(end, what.processes)
    return story.record

  return trial


def damage(path: pathlib.Path, rng: np.random.Generator) -> None:
  """Truncates a file, or flips one bit of it."""
  content = bytearray(path.read_bytes())
  at = int(rng.integers(len(content)))
  if rng.integers(2):
    del content[at:]
  else:
    content[at] ^= 1 << int(rng.integers(8))
  path.write_bytes(content)


@contextlib.contextmanager
def _on_small_disk(
  bench: trials.Bench, kilobytes: int
) -> Iterator[trials.Bench]:
  """The same, with its workdir alone on a disk of that size."""
  disk = bench.workdir.with_name('disk')
  disk.mkdir()
  _mount('-t', 'tmpfs', '-o', f'size={kilobytes}k', 'tmpfs', disk)
  try:
    yield dataclasses.replace(bench, workdir=disk / 'run')
  finally:
    subprocess.run(['umount', str(disk)], check=True)


def _remount(bench: trials.Bench, option: str) -> None:
  _mount('-o', f'remount,{option}', bench.workdir.parent)


def _mount(*arguments: Any) -> None:
  subprocess.run(['mount', *map(str, arguments)], check=True)


def _beside(bench: trials.Bench, processes: int) -> lives.Start:
  """A start whose logs are not on the small disk."""
  return dataclasses.replace(
    bench.start(processes), logs=bench.workdir.parent.with_name('logs')
  )


def disk_full(processes: int) -> trials.Trial:
  """A disk that fills up somewhere on the way, then has room again."""

  def trial(bench: trials.Bench, rng: np.random.Generator) -> trials.Record:
    with _on_small_disk(bench, int(rng.integers(8, 1_000))) as bench:
      story = trials.Story(bench, hits=1)
      end = story.live(_beside(bench, processes))
      story.expect(end.refused or end.finished, end)
      _remount(bench, 'size=64m')
      return story.finish(_beside(bench, processes), processes)

  return trial


def read_only(processes: int) -> trials.Trial:
  """A stopped training on a disk that nobody can write to, for one life."""

  def trial(bench: trials.Bench, rng: np.random.Generator) -> trials.Record:
    del rng
    with _on_small_disk(bench, 64_000) as bench:
      shutil.copytree(bench.stopped(processes), bench.workdir)
      _remount(bench, 'ro')
      story = trials.Story(bench, hits=1)
      end = story.live(_beside(bench, processes))
      story.expect(end.refused, end)
      _remount(bench, 'rw')
      return story.finish(_beside(bench, processes), processes)

  return trial


@dataclasses.dataclass
class _Starve(trials.Hurt):
  """Lets a process write no file beyond that size, as if its disk were full."""

  size: int = 0

  def strike(self, pid: int) -> None:
    limit = (self.size, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


def one_starved(bench: trials.Bench, rng: np.random.Generator) -> trials.Record:
  """One of two processes that can write no more, for the rest of a life."""
  story = trials.Story(bench)
  moment = trials.moment(rng, bench.workdir)
  # Its own log, too, is a file.
  victim, size = int(rng.integers(2)), int(rng.integers(2_048, 16_384))
  starve = _Starve(bench.workdir, moment, victim=victim, size=size)
  end = story.live(bench.start(2), starve)
  story.expect(end.refused or end.finished, end)
  return story.finish(bench.start(2), 2)
