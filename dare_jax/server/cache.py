"""Encoded histories of users, at most so many bytes, the least used given up.

A cache belongs to one bundle: what another one encoded is never found here.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from typing import Any


@dataclasses.dataclass(frozen=True)
class Entry:
  """A state, and the events that are in it.

  Attributes:
    epoch, total: of the store's head when it was made, see `stores.Head`.
    length: behaviors in it.
    state: of `Bundle.encode`.
  """

  epoch: int
  total: int
  length: int
  state: Any

  @property
  def nbytes(self) -> int:
    return int(self.state.nbytes)


class StateCache:
  """Least recently used entries go first. Safe to be used by many threads."""

  def __init__(self, max_bytes: int) -> None:
    self._max_bytes = max_bytes
    self._entries: collections.OrderedDict[str, Entry] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()
    self.nbytes = 0

  def __len__(self) -> int:
    return len(self._entries)

  def get(self, user: str) -> Entry | None:
    with self._lock:
      entry = self._entries.get(user)
      if entry is not None:
        self._entries.move_to_end(user)
      return entry

  def put(self, user: str, entry: Entry) -> None:
    """Keeps an entry, unless there is a later one, or it alone is too large."""
    with self._lock:
      there = self._entries.get(user)
      if there is not None and _is_later(there, entry):
        return
      self._remove(user)
      if entry.nbytes > self._max_bytes:
        return
      self._entries[user] = entry
      self.nbytes += entry.nbytes
      while self.nbytes > self._max_bytes:
        self._remove(next(iter(self._entries)))

  def discard(self, user: str) -> None:
    with self._lock:
      self._remove(user)

  def newest(self, count: int) -> list[str]:
    """Returns the users used last, the last of them first."""
    with self._lock:
      return list(reversed(self._entries))[:count]

  def _remove(self, user: str) -> None:
    entry = self._entries.pop(user, None)
    if entry is not None:
      self.nbytes -= entry.nbytes


def _is_later(there: Entry, entry: Entry) -> bool:
  return there.epoch == entry.epoch and there.total > entry.total
