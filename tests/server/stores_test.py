"""Stores of events: one suite for all three, beside a list in Python."""

from __future__ import annotations

import bisect
from concurrent import futures
import pathlib
import random
import threading

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.server import events as events_lib
from dare_jax.server import stores
from dare_jax.server.stores import base
from tests.server import process

_KINDS = ('memory', 'sqlite', 'redis')


@pytest.fixture(scope='module')
def redis_url(tmp_path_factory):
  with process.redis_server(tmp_path_factory.mktemp('redis')) as url:
    if url is None:
      pytest.skip('redis-server is not installed (Debian: apt install it)')
    yield url


@pytest.fixture(params=_KINDS)
def spec(request, tmp_path):
  if request.param == 'redis':
    import redis

    url = request.getfixturevalue('redis_url')
    redis.Redis.from_url(url).flushall()
    return url
  return 'memory' if request.param == 'memory' else f'sqlite:{tmp_path}/s.db'


@pytest.fixture
def opened(spec):
  store = stores.open_store(spec, max_events=600)
  yield store
  store.close()


def _events(pairs, field='item'):
  """Events of (id, time); their value says which they are."""
  ids, times = [one for one, _ in pairs], [when for _, when in pairs]
  values = {field: [f'i{one}' for one in ids]}
  return events_lib.Events.make(ids, times, values)


def _items(store, user='u', last=None):
  found = store.read(user, last)
  return None if found is None else list(found[1].column('item'))


def test_what_is_appended_is_read(opened):
  assert opened.head('u') is None
  assert opened.read('u') is None
  done = opened.append('u', _events([(1, 10), (2, 20)]))
  assert done == base.Appended(accepted=2, duplicates=0, expired=0)
  head, events = opened.read('u')
  assert head == opened.head('u')
  assert list(events.times) == [10, 20]
  assert _items(opened) == ['i1', 'i2']
  assert _items(opened, last=1) == ['i2']
  assert _items(opened, 'another') is None
  assert opened.users(5) == ['u']


def test_an_event_id_counts_once(opened):
  opened.append('u', _events([(1, 10), (1, 10), (2, 20)]))
  done = opened.append('u', _events([('2', 99), (3, 30)]))
  assert done == base.Appended(accepted=1, duplicates=1, expired=0)
  assert _items(opened) == ['i1', 'i2', 'i3']
  before = opened.head('u')
  assert opened.append('u', _events([(3, 30)])).accepted == 0
  assert opened.head('u') == before


def test_late_events_go_where_their_time_is(opened):
  opened.append('u', _events([(n, 10 * n) for n in range(600)]))
  before = opened.head('u')
  opened.append('u', _events([('x', 25), ('y', 30)]))
  items = _items(opened)
  assert items.index('ix') == items.index('i2') + 1
  assert items.index('iy') == items.index('i3') + 1
  assert opened.head('u').epoch != before.epoch


def test_an_append_at_the_end_keeps_the_epoch(opened):
  opened.append('u', _events([(1, 1)]))
  before = opened.head('u')
  opened.append('u', _events([(3, 2), (2, 1)]))
  after = opened.head('u')
  assert (after.epoch, after.total) == (before.epoch, 3)


def test_only_the_newest_are_kept(opened):
  for start in range(0, 1000, 100):
    opened.append('u', _events([(n, n) for n in range(start, start + 100)]))
  assert _items(opened) == [f'i{n}' for n in range(400, 1000)]
  done = opened.append('u', _events([('old', 3), ('kept', 700)]))
  assert done == base.Appended(accepted=1, duplicates=0, expired=1)
  assert len(_items(opened)) == 600


def test_forgotten_is_forgotten(opened):
  opened.append('u', _events([(n, n) for n in range(300)]))
  opened.append('v', _events([(1, 1)]))
  before = opened.head('u')
  assert opened.delete('u')
  assert not opened.delete('u')
  assert opened.read('u') is None
  assert _items(opened, 'v') == ['i1']
  opened.append('u', _events([(1, 1)]))
  assert _items(opened) == ['i1']
  assert opened.head('u').epoch != before.epoch


@pytest.mark.parametrize('seed', range(3))
def test_equals_a_sorted_list(opened, seed):
  """Random batches, late and doubled ones, against an obvious twin."""
  rng = random.Random(seed)
  twin, known, clock = [], set(), 0
  for _ in range(40):
    batch = []
    for _ in range(rng.choice([1, 2, 40])):
      clock += rng.choice([0, 1, 3])
      late = rng.random() < 0.1
      when = rng.randrange(clock + 1) if late else clock
      batch.append((rng.randrange(2000), when))
    opened.append('u', _events(batch))
    # New events of one time keep the order in which they came.
    for one, when in batch:
      if one not in known:
        known.add(one)
        bisect.insort(twin, (when, f'i{one}'), key=lambda pair: pair[0])
  assert len(twin) < 600
  _, events = opened.read('u')
  assert list(zip(events.times, events.column('item'), strict=True)) == twin


def test_values_of_any_kind_and_missing_fields(opened):
  values = {'item': [5, 'ü\0x', None], 'price': [1.5, 2, 'three']}
  opened.append('u', events_lib.Events.make([1, 2, 3], [1, 2, 3], values))
  opened.append('u', _events([(4, 4)]))
  _, events = opened.read('u')
  assert list(events.column('item')) == [5, 'ü\0x', None, 'i4']
  assert list(events.column('price')) == [1.5, 2, 'three', None]


def test_concurrent_appends_lose_nothing(opened):
  """Eight threads, one user among them shared, each event sent twice."""

  def send(worker):
    for n in range(25):
      pairs = [(f'{worker}-{n}', n)]
      opened.append('shared', _events(pairs))
      opened.append('shared', _events(pairs))
      opened.append(f'own{worker}', _events(pairs))

  with futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(send, range(8)))
  items = _items(opened, 'shared')
  assert sorted(items) == sorted(
    f'i{w}-{n}' for w in range(8) for n in range(25)
  )
  assert all(len(_items(opened, f'own{w}')) == 25 for w in range(8))
  _, events = opened.read('shared')
  assert (np.diff(events.times) >= 0).all()


@pytest.mark.parametrize('kind', ['sqlite', 'redis'])
def test_is_there_when_opened_again(kind, tmp_path, request):
  if kind == 'redis':
    where = request.getfixturevalue('redis_url')
  else:
    where = f'sqlite:{tmp_path}/again.db'
  store = stores.open_store(where, 100)
  store.append('again', _events([(1, 1), (2, 2)]))
  store.close()
  store = stores.open_store(where, 100)
  assert _items(store, 'again') == ['i1', 'i2']
  store.delete('again')
  store.close()


def test_sqlite_commits_in_groups(tmp_path):
  """Many appends at once take far fewer commits than there are appends."""
  store = stores.open_store(f'sqlite:{tmp_path}/group.db', 100)
  barrier = threading.Barrier(32)

  def send(n):
    barrier.wait()
    for turn in range(4):
      store.append(f'u{n}', _events([(turn, turn)]))

  with futures.ThreadPoolExecutor(32) as pool:
    list(pool.map(send, range(32)))
  assert store.num_commits < 64
  store.close()


@pytest.mark.parametrize('where', ['sqlite', 'disk', 'sqlite:', 'http://x'])
def test_an_unknown_kind_is_refused(where):
  with pytest.raises(errors.UsageError, match='expected memory, sqlite:PATH'):
    stores.open_store(where, 10)


def test_what_cannot_be_opened_is_refused(tmp_path):
  path = pathlib.Path(tmp_path, 'text.db')
  path.write_text('no database at all, but long enough to look like one ' * 9)
  for where in (f'sqlite:{path}', f'sqlite:{tmp_path}/no/folder.db'):
    with pytest.raises(errors.UsageError, match='expected a file'):
      stores.open_store(where, 10)
  with pytest.raises(errors.UsageError) as error:
    stores.open_store('redis://:secret@127.0.0.1:1/0', 10)
  assert 'secret' not in str(error.value)


def test_a_forgotten_user_is_not_in_the_file(tmp_path):
  """Neither in the file nor in its log."""
  store = stores.open_store(f'sqlite:{tmp_path}/f.db', 100)
  store.append('u', _events([('private', 1)]))
  store.delete('u')
  files = [path.read_bytes() for path in pathlib.Path(tmp_path).iterdir()]
  assert not any(b'iprivate' in content for content in files)
  store.close()
