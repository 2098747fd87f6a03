"""Where users' events are kept: memory, SQLite or Redis, one interface.

`open_store(spec)` opens one; `base.Store` is the interface.
"""

from __future__ import annotations

from dare_jax import errors
from dare_jax.server.stores import base
from dare_jax.server.stores import memory

Store = base.Store
StoreError = base.StoreError
Head = base.Head
Appended = base.Appended


def open_store(spec: str, max_events: int) -> base.Store:
  """Returns an open store.

  Args:
    spec: 'memory', 'sqlite:PATH', or a URL of Redis (redis://, rediss://,
      unix://).
    max_events: how many events of a user are kept, the newest.

  Raises:
    UsageError: no such kind, or it cannot be opened.
  """
  kind, _, rest = spec.partition(':')
  if spec == 'memory':
    return memory.MemoryStore(max_events)
  if kind == 'sqlite' and rest:
    from dare_jax.server.stores import sqlite

    return sqlite.SqliteStore(rest, max_events)
  if kind in ('redis', 'rediss', 'unix') and rest.startswith('//'):
    from dare_jax.server.stores import redis

    return redis.RedisStore(spec, max_events)
  raise errors.UsageError(
    f'--state={spec}: expected memory, sqlite:PATH or redis://HOST:PORT/0.'
  )
