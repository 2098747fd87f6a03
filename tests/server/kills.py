"""Servers killed while users' events are written: what was told is kept.

    python -m tests.server.kills [--kills=30] [--state=sqlite|redis]

Each turn starts a server on the same state, writes with several clients, kills
it with SIGKILL, and reads what is there after the next start.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import random
import tempfile
import threading
import time

import httpx2 as httpx

from tests.server import double
from tests.server import process

_USERS, _CLIENTS = 5, 6


class Writers:
  """Clients that write, and remember what they were told.

  Attributes:
    sent, told: events of each user: sent at all, and acknowledged.
    unsure: what was sent and not answered: to be sent again.
  """

  def __init__(self, seed: int) -> None:
    self._rng = random.Random(seed)
    self._lock = threading.Lock()
    self._next = 0
    self.sent: dict[str, set[str]] = collections.defaultdict(set)
    self.told: dict[str, set[str]] = collections.defaultdict(set)
    self.unsure: list[tuple[str, list[dict[str, object]]]] = []

  def _work(self) -> tuple[str, list[dict[str, object]]]:
    with self._lock:
      if self.unsure:
        return self.unsure.pop()
      user = f'u{self._rng.randrange(_USERS)}'
      events = []
      for _ in range(self._rng.choice([1, 1, 5])):
        self._next += 1
        name = f'i{self._next}'
        late = 50 * (self._rng.random() < 0.1)
        row = {'item': name, 'category': 'c1', 'time': self._next - late}
        events.append({'event_id': name, **row})
        self.sent[user].add(name)
      return user, events

  def write(self, url: str, stop: threading.Event) -> None:
    """Writes until told to stop, or the server is gone."""
    with httpx.Client(base_url=url, timeout=30) as client:
      while not stop.is_set():
        user, events = self._work()
        try:
          answer = client.post(f'/users/{user}/events', json={'events': events})
          answer.raise_for_status()
        except httpx.HTTPError:
          with self._lock:
            self.unsure.append((user, events))
          return
        with self._lock:
          self.told[user].update(str(one['item']) for one in events)

  def check(self, client: httpx.Client) -> int:
    """Checks what a server has; returns how many events that are."""
    count = 0
    for user, told in self.told.items():
      events = client.get(f'/users/{user}/events').json()['events']
      items = [one['item'] for one in events]
      assert len(items) == len(set(items)), 'an event is doubled'
      assert told <= set(items), f'{len(told - set(items))} events are lost'
      assert set(items) <= self.sent[user], 'an event came from nowhere'
      times = [one['time'] for one in events]
      assert times == sorted(times), 'events are out of order'
      count += len(items)
    return count


def run(folder: pathlib.Path, state: str, kills: int, seed: int = 0) -> int:
  """Kills servers under load; returns how many events were kept at the end.

  Args:
    folder: for the bundle.
    state: as `--state` has it.
    kills: how many servers are killed.
    seed: of what is written and when the kill comes.
  """
  rng, writers = random.Random(seed), Writers(seed)
  bundle = double.write(folder / 'bundle')
  flags = (f'--state={state}', '--max_events=100000', '--nolog_requests')
  for _ in range(kills):
    with process.Server(bundle, *flags) as server:
      writers.check(server.client)
      stop = threading.Event()
      threads = [
        threading.Thread(target=writers.write, args=(server.url, stop))
        for _ in range(_CLIENTS)
      ]
      for thread in threads:
        thread.start()
      time.sleep(rng.uniform(0.1, 0.8))
      server.kill()
      stop.set()
      for thread in threads:
        thread.join()
  with process.Server(bundle, *flags) as server:
    writers.check(server.client)
    stop = threading.Event()
    while writers.unsure:
      user, events = writers.unsure.pop()
      server.client.post(f'/users/{user}/events', json={'events': events})
      writers.told[user].update(str(one['item']) for one in events)
    count = writers.check(server.client)
  assert count == sum(map(len, writers.sent.values()))
  return count


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--kills', type=int, default=30)
  parser.add_argument('--state', choices=['sqlite', 'redis'], default='sqlite')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    if args.state == 'sqlite':
      count = run(folder, f'sqlite:{folder}/state.db', args.kills)
    else:
      with process.redis_server(folder) as url:
        count = run(folder, url, args.kills)
  print(f'{args.kills} kills, {args.state}: {count} events, none lost or twice')


if __name__ == '__main__':
  main()
