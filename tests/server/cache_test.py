"""The cache gives up keys first, then users, and counts what it holds."""

import dataclasses

from dare_jax.server import cache as cache_lib

_OWN = cache_lib._ENTRY_BYTES


@dataclasses.dataclass(frozen=True)
class _State:
  ids: int
  keys: int = 0

  @property
  def nbytes(self):
    return self.ids + self.keys

  def compact(self):
    return dataclasses.replace(self, keys=0)


def _entry(ids=100, keys=9_000, total=1):
  return cache_lib.Entry(1, total, 5, _State(ids, keys))


def _keys(cache, user):
  entry = cache.get(user)
  return None if entry is None else entry.state.keys


def test_keys_go_before_users_and_the_least_used_first():
  cache = cache_lib.StateCache(30_000)
  for user in 'abc':
    cache.put(user, _entry())
  assert cache.nbytes == 3 * (9_100 + _OWN)
  assert _keys(cache, 'a') == 9_000  # Used: b is the least used now.
  cache.put('d', _entry())
  assert len(cache) == 4
  kept = [_keys(cache, user) for user in 'abcd']
  assert kept == [9_000, 0, 0, 9_000]
  assert cache.nbytes == 2 * (9_100 + _OWN) + 2 * (100 + _OWN)


def test_users_far_beyond_the_bytes():
  """Those used last are whole in a part of the bytes, the others compact."""
  cache = cache_lib.StateCache(200_000)
  for number in range(1_000):
    cache.put(f'u{number}', _entry())
    assert cache.nbytes <= 200_000
  whole = [n for n in range(1_000) if _keys(cache, f'u{n}')]
  there = [n for n in range(1_000) if cache.get(f'u{n}') is not None]
  assert whole == [998, 999]
  assert there == [*range(1_000 - len(there), 1_000)]
  assert len(there) > 150
  for number in there:
    cache.discard(f'u{number}')
  assert (cache.nbytes, len(cache)) == (0, 0)


def test_a_later_entry_stays_and_one_too_large_is_not_kept():
  cache = cache_lib.StateCache(20_000)
  cache.put('a', _entry(total=2))
  cache.put('a', _entry(total=1))
  assert cache.get('a').total == 2
  cache.put('a', _entry(ids=30_000, total=3))
  assert cache.get('a') is None
  assert cache.nbytes == 0
