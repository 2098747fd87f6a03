"""Encoded histories of users, in bounded memory, the least used dropped.

They are given up in two steps. First the search keys go, most of the bytes,
which are made anew from the ids without a look into the store; then the ids. A
share of the bytes is for states with keys, however many users there are.

A cache belongs to one bundle: what another one encoded is never found here.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from typing import Any

# Of the bytes: states with keys keep one of so many parts.
_WHOLE_PART = 8
# Bytes of an entry's Python objects besides its arrays (measured: 0.9 kB).
_ENTRY_BYTES = 900


@dataclasses.dataclass(frozen=True)
class Entry:
  """A state, and the events that are in it.

  Attributes:
    epoch, total: epoch and total of the store's head when the entry was made,
      see `stores.Head`.
    length: number of behaviors in the state.
    state: the state, as `Bundle.encode` returns it.
  """

  epoch: int
  total: int
  length: int
  state: Any

  @property
  def nbytes(self) -> int:
    return int(self.state.nbytes) + _ENTRY_BYTES

  def compact(self) -> Entry:
    """Returns the entry with a compact state."""
    return dataclasses.replace(self, state=self.state.compact())


class StateCache:
  """Least recently used entries go first. Safe to be used by many threads.

  Attributes:
    nbytes: bytes that all entries hold.
  """

  def __init__(self, max_bytes: int) -> None:
    self._max_bytes = max_bytes
    self._whole: collections.OrderedDict[str, Entry] = collections.OrderedDict()
    self._compact: collections.OrderedDict[str, Entry] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()
    self._whole_bytes = 0
    self.nbytes = 0

  def __len__(self) -> int:
    return len(self._whole) + len(self._compact)

  def get(self, user: str) -> Entry | None:
    """Returns the entry of a user; its state may be compact."""
    with self._lock:
      for entries in (self._whole, self._compact):
        if user in entries:
          entries.move_to_end(user)
          return entries[user]
      return None

  def put(self, user: str, entry: Entry) -> None:
    """Keeps an entry, unless there is a later one, or it alone is too large."""
    with self._lock:
      there = self._whole.get(user) or self._compact.get(user)
      if there is not None and _is_later(there, entry):
        return
      self._remove(user)
      if entry.nbytes > self._max_bytes:
        return
      self._whole[user] = entry
      self._whole_bytes += entry.nbytes
      self.nbytes += entry.nbytes
      while self.nbytes > self._max_bytes:
        self._give_up_one()

  def discard(self, user: str) -> None:
    with self._lock:
      self._remove(user)

  def newest(self, count: int) -> list[str]:
    """Returns the users used last, the last of them first."""
    with self._lock:
      users = [*reversed(self._whole), *reversed(self._compact)]
      return users[:count]

  def _give_up_one(self) -> None:
    """Makes the least used whole state compact, or drops a compact one."""
    has_many = self._whole_bytes > self._max_bytes // _WHOLE_PART
    if self._compact and not has_many:
      self._remove(next(iter(self._compact)))
      return
    user, entry = next(iter(self._whole.items()))
    self._remove(user)
    small = entry.compact()
    if small.nbytes < entry.nbytes:
      self._compact[user] = small
      self.nbytes += small.nbytes

  def _remove(self, user: str) -> None:
    entry = self._whole.pop(user, None)
    if entry is not None:
      self._whole_bytes -= entry.nbytes
    else:
      entry = self._compact.pop(user, None)
    if entry is not None:
      self.nbytes -= entry.nbytes


def _is_later(there: Entry, entry: Entry) -> bool:
  return there.epoch == entry.epoch and there.total > entry.total
