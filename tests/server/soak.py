"""A server asked for minutes while bundles are swapped: memory stays flat.

    python -m tests.server.soak --bundle=A[,B] [--seconds=300] [--swaps=20]

Users are drawn by Zipf's law; a fifth of the requests come after a new event.
The cache is far too small for all users, so that it has to give up states all
the time. With two bundles of one model, such as one of int8 tables beside one
of float32, the watched path turns from one to the other. No request may fail,
and each answer has to be wholly of one version.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import os
import pathlib
import tempfile
import threading
import time
from typing import Any

import httpx2 as httpx
import numpy as np

from dare_jax import bundle as bundle_lib
from tests.server import process

_VALUES = 2_000  # of each field
_EVENT_SHARE = 0.2
_EVERY_S = 10.0


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How much is asked: users, behaviors and candidates of each."""

  users: int = 2_000
  behaviors: int = 1_000
  candidates: int = 20
  clients: int = 2
  cache_mib: int = 16


class Asking:
  """Clients that ask, and what they saw."""

  def __init__(
    self, url: str, opened: Sequence[bundle_lib.Bundle], sizes: Sizes
  ) -> None:
    self._url, self._sizes = url, sizes
    self._fields = opened[0].fields
    self._values = {f: opened[0].known_values(f, _VALUES) for f in self._fields}
    share = 1 / np.arange(1, sizes.users + 1)
    self._share = share / share.sum()
    self._versions = {one.version for one in opened}
    self.stop = threading.Event()
    self.answers: dict[str, int] = dict.fromkeys(self._versions, 0)
    self.failed: list[str] = []

  def rows(self, rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    columns = []
    for values in self._values.values():
      drawn = rng.integers(len(values), size=count)
      columns.append([values[place] for place in drawn])
    rows = zip(*columns, strict=True)
    return [dict(zip(self._fields, row, strict=True)) for row in rows]

  def ask(self, seed: int) -> None:
    """Asks until told to stop, or something is wrong."""
    rng = np.random.default_rng(seed)
    number = 0
    with httpx.Client(base_url=self._url, timeout=30) as client:
      try:
        while not self.stop.is_set():
          number += 1
          user = f'u{rng.choice(self._sizes.users, p=self._share)}'
          if rng.random() < _EVENT_SHARE:
            self._append(client, rng, user, f'{seed}-{number}', 1)
          self._score(client, rng, user)
      except Exception as error:
        self.failed.append(f'{type(error).__name__}: {error}')

  def _append(
    self, client: Any, rng: Any, user: str, name: str, count: int
  ) -> None:
    events = self.rows(rng, count)
    for place, event in enumerate(events):
      event.update(event_id=f'{name}-{place}')
    answer = client.post(f'/users/{user}/events', json={'events': events})
    answer.raise_for_status()

  def _score(self, client: Any, rng: Any, user: str) -> None:
    body = {
      'user_id': user,
      'candidates': self.rows(rng, self._sizes.candidates),
    }
    answer = client.post('/score', json=body)
    if answer.status_code == 404:  # The user has no events yet.
      self._append(client, rng, user, 'first', self._sizes.behaviors)
      answer = client.post('/score', json=body)
    told = answer.raise_for_status().json()
    assert told['version'] in self._versions, told['version']
    assert len(told['scores']) == self._sizes.candidates
    self.answers[told['version']] += 1


def run(
  bundles: Sequence[str],
  seconds: float,
  swaps: int,
  sizes: Sizes = Sizes(),
) -> list[tuple[float, int, float]]:
  """Asks a server for a while; returns seconds, answers and MB at some times.

  Args:
    bundles: one, or two of one model to swap between.
    seconds: how long.
    swaps: how often the path turns.
    sizes: what is asked.
  """
  opened = [bundle_lib.open(path) for path in bundles]
  with tempfile.TemporaryDirectory() as name:
    link = pathlib.Path(name) / 'bundle'
    _turn(link, bundles[0])
    flags = (
      f'--state=sqlite:{name}/state.db', f'--cache_mib={sizes.cache_mib}',
      '--nolog_requests', '--watch_s=0.5',
    )  # fmt: skip
    with process.Server(link, *flags, module=process.REAL) as server:
      asking = Asking(server.url, opened, sizes)
      threads = [
        threading.Thread(target=asking.ask, args=(seed,))
        for seed in range(sizes.clients)
      ]
      for thread in threads:
        thread.start()
      seen = _watch(server, asking, link, bundles, seconds, swaps)
      asking.stop.set()
      for thread in threads:
        thread.join()
      metrics = server.client.get('/metrics').text
  assert not asking.failed, asking.failed
  if swaps and len(bundles) > 1:
    assert 'dare_swaps_total{result="refused"}' not in metrics
    assert all(asking.answers.values()), asking.answers
  return seen


def _watch(
  server: process.Server,
  asking: Asking,
  link: pathlib.Path,
  bundles: Sequence[str],
  seconds: float,
  swaps: int,
) -> list[tuple[float, int, float]]:
  begin, done = time.monotonic(), 0
  seen: list[tuple[float, int, float]] = []
  while (now := time.monotonic() - begin) < seconds and not asking.failed:
    if done < swaps and now > (done + 1) * seconds / (swaps + 1):
      done += 1
      _turn(link, bundles[done % len(bundles)])
    if now >= _EVERY_S * len(seen):
      answers = sum(asking.answers.values())
      seen.append((now, answers, memory_mb(server.process.pid)))
      print(f'{now:6.0f} s  {answers:8,} answers  {seen[-1][2]:7.0f} MB')
    time.sleep(0.1)
  return seen


def memory_mb(pid: int) -> float:
  """Returns what a process holds."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  return int(status.split('VmRSS:')[1].split()[0]) * 1024 / 1e6


def _turn(link: pathlib.Path, target: str) -> None:
  beside = link.with_suffix('.new')
  os.symlink(os.path.abspath(target), beside)
  os.replace(beside, link)


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--bundle', required=True, help='one, or two: A,B')
  parser.add_argument('--seconds', type=float, default=300)
  parser.add_argument('--swaps', type=int, default=20)
  parser.add_argument('--users', type=int, default=2_000)
  parser.add_argument('--behaviors', type=int, default=1_000)
  parser.add_argument('--cache_mib', type=int, default=16)
  args = parser.parse_args()
  sizes = Sizes(args.users, args.behaviors, cache_mib=args.cache_mib)
  bundles = args.bundle.split(',')
  swaps = args.swaps if len(bundles) > 1 else 0
  seen = run(bundles, args.seconds, swaps, sizes)
  third = [memory for when, _, memory in seen if when > args.seconds / 3]
  print(
    f'{seen[-1][1]:,} answers, none failed, {swaps} swaps; memory after a'
    f' third {third[0]:.0f} MB, most since {max(third):.0f} MB, last'
    f' {third[-1]:.0f} MB'
  )


if __name__ == '__main__':
  main()
