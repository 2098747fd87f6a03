"""Events in Redis (or Valkey): shared by many servers.

An append is one transaction, taken up again if another server came between. How
durable it is, Redis decides: with `appendonly yes` and `appendfsync always`,
what was acknowledged survives the death of Redis as well.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import random
import threading
import time
from typing import Any
from typing import TypeVar

import msgspec
import redis

from dare_jax import errors
from dare_jax.server import events as events_lib
from dare_jax.server.stores import base

_PREFIX = 'dare_jax:user:'
_SECONDS = 5.0
_TRIES = 20
_PAUSE_SECONDS = 0.005
_LOCKS = 64
_T = TypeVar('_T')


class RedisStore(base.Store):
  """One hash a user: 'head', 'parts' (the chunks' numbers), and the chunks.

  Of chunk n, 'k<n>' holds keys and times, 'r<n>' the raw values.
  """

  def __init__(self, url: str, max_events: int) -> None:
    super().__init__(max_events)
    self._locks = [threading.Lock() for _ in range(_LOCKS)]
    # The URL may hold a password, so messages leave it out.
    try:
      self._redis = redis.Redis.from_url(
        url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
      )
      self._redis.ping()
    except (redis.RedisError, ValueError) as error:
      raise errors.UsageError(
        f'--state={url.partition(":")[0]}://...: {error}; expected the URL of a'
        ' running server, redis://HOST:PORT/DATABASE.'
      ) from None

  def append(self, user: str, events: events_lib.Events) -> base.Appended:
    return self._told(lambda: self._append(user, events))

  def _append(self, user: str, events: events_lib.Events) -> base.Appended:
    name = _PREFIX + user
    for turn in range(_TRIES):
      # Threads of one server need not race; two servers seldom do.
      time.sleep(random.random() * turn * _PAUSE_SECONDS)
      with self._locks[hash(user) % _LOCKS], self._redis.pipeline() as pipe:
        pipe.watch(name)
        head, parts = _parts(pipe, name)

        def load(wanted: Sequence[base.Part]) -> list[events_lib.Events]:
          return _load(pipe, name, wanted)

        change = base.plan_append(head, parts, load, events, self.max_events)
        if not change.appended.accepted:
          return change.appended
        pipe.multi()
        _write(pipe, name, parts, change)
        try:
          pipe.execute()
        except redis.WatchError:
          continue
        return change.appended
    raise base.StoreError(f'other servers write to this user: {_TRIES} tries')

  def head(self, user: str) -> base.Head | None:
    """Returns the head of a user; None of one without events."""

    def read() -> base.Head | None:
      return _head(self._redis.hget(_PREFIX + user, 'head'))

    return self._told(read)

  def read(
    self, user: str, last: int | None = None
  ) -> tuple[base.Head, events_lib.Events] | None:
    return self._told(lambda: self._read(user, last))

  def _read(
    self, user: str, last: int | None
  ) -> tuple[base.Head, events_lib.Events] | None:
    name = _PREFIX + user
    for _ in range(_TRIES):
      with self._redis.pipeline() as pipe:
        pipe.watch(name)
        packed, index = pipe.hmget(name, ['head', 'parts'])
        head = _head(packed)
        if head is None:
          return None
        listed = _index(index)
        lengths = [length for _, length in listed]
        first, count = base.newest(head, lengths, last)
        keys = [f'{kind}{n}' for n, _ in listed[first:] for kind in 'kr']
        pipe.multi()
        if keys:
          pipe.hmget(name, keys)
        try:
          found = pipe.execute()
        except redis.WatchError:
          continue
      values = iter(found[0] if found else [])
      chunks = [
        base.unpack(_part(n, keys), raw)
        for (n, _), keys, raw in zip(
          listed[first:], values, values, strict=True
        )
      ]
      events = events_lib.join(chunks)
      return head, events.cut(len(events) - count)
    raise base.StoreError(f'other servers write to this user: {_TRIES} tries')

  def delete(self, user: str) -> bool:
    return self._told(lambda: bool(self._redis.delete(_PREFIX + user)))

  def users(self, limit: int) -> list[str]:
    """Returns some users, at most `limit`."""

    def scan() -> list[str]:
      found: list[str] = []
      for name in self._redis.scan_iter(f'{_PREFIX}*', count=limit):
        found.append(name.decode().removeprefix(_PREFIX))
        if len(found) >= limit:
          break
      return found

    return self._told(scan)

  def _told(self, work: Callable[[], _T]) -> _T:
    try:
      return work()
    except redis.RedisError as error:
      raise base.StoreError(f'Redis: {error}') from error

  def close(self) -> None:
    """Closes the connections."""
    self._redis.close()


def _head(packed: Any) -> base.Head | None:
  return None if packed is None else base.Head(*msgspec.msgpack.decode(packed))


def _index(packed: Any) -> list[tuple[int, int]]:
  """Returns the number and length of each chunk, in order."""
  return [] if packed is None else msgspec.msgpack.decode(packed)


def _part(number: int, packed: bytes) -> base.Part:
  keys, times = msgspec.msgpack.decode(packed)
  return base.Part(number, keys, times)


def _parts(pipe: Any, name: str) -> tuple[base.Head | None, list[base.Part]]:
  packed, index = pipe.hmget(name, ['head', 'parts'])
  listed = _index(index)
  if not listed:
    return _head(packed), []
  found = pipe.hmget(name, [f'k{number}' for number, _ in listed])
  return _head(packed), [
    _part(number, one) for (number, _), one in zip(listed, found, strict=True)
  ]


def _load(
  pipe: Any, name: str, wanted: Sequence[base.Part]
) -> list[events_lib.Events]:
  if not wanted:
    return []
  found = pipe.hmget(name, [f'r{part.number}' for part in wanted])
  return [
    base.unpack(part, raw) for part, raw in zip(wanted, found, strict=True)
  ]


def _write(
  pipe: Any, name: str, parts: Sequence[base.Part], change: base.Change
) -> None:
  head = change.head
  lengths = {part.number: len(part) for part in parts}
  for number in change.removed:
    del lengths[number]
  fields: dict[str, bytes] = {}
  for number, chunk in change.written.items():
    lengths[number] = len(chunk)
    times = chunk.times.tobytes()
    fields[f'k{number}'] = msgspec.msgpack.encode((chunk.keys, times))
    fields[f'r{number}'] = base.pack(chunk.values)
  fields['head'] = msgspec.msgpack.encode(
    (head.epoch, head.total, head.skip, head.floor)
  )
  fields['parts'] = msgspec.msgpack.encode(sorted(lengths.items()))
  pipe.hset(name, mapping=fields)
  if change.removed:
    pipe.hdel(name, *[f'{k}{n}' for n in change.removed for k in 'kr'])
