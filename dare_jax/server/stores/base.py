"""The interface of a store, and what all stores share: packed chunks.

A user's events lie in chunks of up to `CHUNK` in order of time. Of each chunk
the keys of event ids and the times are columns of fixed width, read alone to
place an event and to know it again; the raw values are one packed blob. An
append rewrites the last chunk only, unless an event comes late.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import secrets

import msgspec
import numpy as np

from dare_jax.server import events as events_lib

CHUNK = 256
_EARLIEST = -(2**63)


class StoreError(Exception):
  """The store cannot be reached, or cannot write; a later call may succeed."""


@dataclasses.dataclass(frozen=True)
class Head:
  """The version of a user's events, known without reading them.

  Attributes:
    epoch: drawn anew when anything but an append at the end happens. In one
      epoch a state is a beginning of every later one.
    total: events appended at the end so far, those since dropped included.
    skip: events at the beginning of the first chunk that are dropped.
    floor: time of the newest dropped event; what is older is not taken.
  """

  epoch: int
  total: int
  skip: int = 0
  floor: int = _EARLIEST


@dataclasses.dataclass(frozen=True)
class Appended:
  """What became of events: each is one of these."""

  accepted: int
  duplicates: int
  expired: int


@dataclasses.dataclass(frozen=True)
class Part:
  """A chunk without its raw values: keys joined, and int64 times as bytes."""

  number: int
  keys: bytes
  times: bytes

  def __len__(self) -> int:
    return len(self.times) // 8

  def time_array(self) -> np.ndarray:
    return np.frombuffer(self.times, '<i8')


@dataclasses.dataclass(frozen=True)
class Change:
  """What an append writes: the head, whole chunks, and those to remove."""

  head: Head
  written: Mapping[int, events_lib.Events]
  removed: Sequence[int]
  appended: Appended


def pack(values: Mapping[str, Sequence[events_lib.Raw]]) -> bytes:
  return msgspec.msgpack.encode(values)


def unpack(part: Part, blob: bytes) -> events_lib.Events:
  return events_lib.Events(
    part.keys, part.time_array(), msgspec.msgpack.decode(blob)
  )


class Store(abc.ABC):
  """Events of users. Safe to be called from many threads.

  Attributes:
    max_events: largest number of events of a user; older ones are dropped.
  """

  def __init__(self, max_events: int) -> None:
    self.max_events = max_events

  @abc.abstractmethod
  def append(self, user: str, events: events_lib.Events) -> Appended:
    """Keeps events: when it returns, they are as durable as the store is.

    An event whose id the user has already is not taken again, so that a client
    may send it until it is acknowledged. An event that comes late is put where
    its time belongs, after those of the same time.

    Raises:
      StoreError: the events may be kept or not; send them again.
    """

  @abc.abstractmethod
  def head(self, user: str) -> Head | None:
    """Returns the head, None of a user who has no events."""

  @abc.abstractmethod
  def read(
    self, user: str, last: int | None = None
  ) -> tuple[Head, events_lib.Events] | None:
    """Returns the newest `last` events, oldest first, and the head with them.

    At most `max_events`, which is also what None asks for.
    """

  @abc.abstractmethod
  def delete(self, user: str) -> bool:
    """Forgets a user; returns whether there was anything to forget."""

  @abc.abstractmethod
  def users(self, limit: int) -> list[str]:
    """Returns some users, at most `limit`."""

  @abc.abstractmethod
  def close(self) -> None:
    """Ends what the store has open; it is not used after that."""


def plan_append(
  head: Head | None,
  parts: Sequence[Part],
  load: Callable[[Sequence[Part]], Sequence[events_lib.Events]],
  events: events_lib.Events,
  max_events: int,
) -> Change:
  """Returns what an append changes.

  Args:
    head: None of a new user.
    parts: all chunks of the user, in order.
    load: reads whole chunks.
    events: the events to append, in any order.
    max_events: largest number of events that are left.
  """
  head = Head(secrets.randbits(62), 0) if head is None else head
  fresh, duplicates = _fresh(parts, events)
  in_time = [place for place in fresh if events.times[place] >= head.floor]
  count = Appended(len(in_time), duplicates, len(fresh) - len(in_time))
  if not in_time:
    return Change(head, {}, [], count)
  new = events.take(in_time)
  new = new.take(np.argsort(new.times, kind='stable'))
  first = _first_touched(parts, int(new.times[0]))
  is_late = bool(parts) and int(parts[-1].time_array()[-1]) > new.times[0]
  whole = events_lib.join([*load(parts[first:]), new])
  if is_late:
    whole = whole.take(np.argsort(whole.times, kind='stable'))
  number = parts[first].number if first < len(parts) else _next(parts)
  starts = range(0, len(whole), CHUNK)
  written = {
    number + place: whole.cut(start, start + CHUNK)
    for place, start in enumerate(starts)
  }
  head = dataclasses.replace(
    head,
    epoch=secrets.randbits(62) if is_late else head.epoch,
    total=head.total + len(new),
  )
  lengths = {part.number: part.time_array() for part in parts[:first]}
  lengths |= {place: chunk.times for place, chunk in written.items()}
  head, dropped = _drop(head, lengths, max_events)
  removed = {part.number for part in parts[first:]} - written.keys()
  return Change(
    head,
    {place: c for place, c in written.items() if place not in dropped},
    sorted(removed | (dropped & {part.number for part in parts})),
    count,
  )


def _fresh(
  parts: Sequence[Part], events: events_lib.Events
) -> tuple[list[int], int]:
  """Returns the places of events with new ids, and how many have others."""
  halves = lambda keys: np.frombuffer(keys, '<u8').reshape(-1, 2)[:, 0]
  asked = halves(events.keys)
  known: set[bytes] = set()
  for part in parts:
    alike = np.flatnonzero(np.isin(halves(part.keys), asked))
    if len(alike):
      keys = events_lib.split_keys(part.keys)
      known.update(keys[place] for place in alike)
  fresh = []
  for place, key in enumerate(events.key_list()):
    if key not in known:
      known.add(key)
      fresh.append(place)
  return fresh, len(events) - len(fresh)


def _first_touched(parts: Sequence[Part], earliest: int) -> int:
  """Returns the first chunk to rewrite; their number if none is."""
  first = len(parts)
  if parts and len(parts[-1]) < CHUNK:
    first -= 1
  for place in range(len(parts) - 1, -1, -1):
    if parts[place].time_array()[-1] <= earliest:
      break
    first = min(first, place)
  return first


def _next(parts: Sequence[Part]) -> int:
  return parts[-1].number + 1 if parts else 0


def _drop(
  head: Head, times: Mapping[int, np.ndarray], max_events: int
) -> tuple[Head, set[int]]:
  """Drops the oldest events beyond `max_events`; returns chunks to remove."""
  skip, floor, dropped = head.skip, head.floor, set()
  visible = sum(map(len, times.values())) - skip
  skip += max(visible - max_events, 0)
  for number, chunk in times.items():
    if skip:
      floor = max(floor, int(chunk[min(skip, len(chunk)) - 1]))
    if skip < len(chunk):
      break
    skip -= len(chunk)
    dropped.add(number)
  return dataclasses.replace(head, skip=skip, floor=floor), dropped


def newest(
  head: Head, lengths: Sequence[int], last: int | None
) -> tuple[int, int]:
  """Returns which chunks hold the newest events: the first, and how many.

  Args:
    head: the head of the user.
    lengths: number of events in each of all chunks, the oldest first.
    last: how many events are asked for; None: all.

  Returns:
    The first chunk to read, and how many of the events from there on count,
    the newest.
  """
  visible = sum(lengths) - head.skip
  wanted = visible if last is None else min(last, visible)
  held, first = 0, len(lengths)
  while first > 0 and held < wanted:
    first -= 1
    held += lengths[first]
  return first, wanted
