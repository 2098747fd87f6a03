"""Events in the memory of this process: gone with it."""

from __future__ import annotations

import dataclasses
import itertools
import threading

from dare_jax.server import events as events_lib
from dare_jax.server.stores import base


@dataclasses.dataclass
class _User:
  head: base.Head
  chunks: dict[int, tuple[base.Part, bytes]]


class MemoryStore(base.Store):
  """Packed chunks in a dict, under one lock."""

  def __init__(self, max_events: int) -> None:
    super().__init__(max_events)
    self._users: dict[str, _User] = {}
    self._lock = threading.Lock()

  def append(self, user: str, events: events_lib.Events) -> base.Appended:
    """Keeps events in memory, see `Store.append`."""
    with self._lock:
      found = self._users.get(user)
      chunks = {} if found is None else found.chunks
      change = base.plan_append(
        None if found is None else found.head,
        [part for part, _ in chunks.values()],
        lambda parts: [base.unpack(*chunks[part.number]) for part in parts],
        events,
        self.max_events,
      )
      if found is None and not change.written:
        return change.appended
      for number in change.removed:
        del chunks[number]
      for number, chunk in change.written.items():
        part = base.Part(number, chunk.keys, chunk.times.tobytes())
        chunks[number] = part, base.pack(chunk.values)
      self._users[user] = _User(change.head, dict(sorted(chunks.items())))
      return change.appended

  def head(self, user: str) -> base.Head | None:
    with self._lock:
      found = self._users.get(user)
      return None if found is None else found.head

  def read(
    self, user: str, last: int | None = None
  ) -> tuple[base.Head, events_lib.Events] | None:
    """Returns the newest events and the head, see `Store.read`."""
    with self._lock:
      found = self._users.get(user)
      if found is None:
        return None
      chunks = list(found.chunks.values())
      head = found.head
    first, count = base.newest(head, [len(part) for part, _ in chunks], last)
    events = events_lib.join([base.unpack(*chunk) for chunk in chunks[first:]])
    return head, events.cut(len(events) - count)

  def delete(self, user: str) -> bool:
    with self._lock:
      return self._users.pop(user, None) is not None

  def users(self, limit: int) -> list[str]:
    with self._lock:
      return list(itertools.islice(self._users, limit))

  def close(self) -> None:
    """Forgets everything."""
    self._users.clear()
