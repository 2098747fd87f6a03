"""Events in a file of SQLite: one machine, no server to run.

WAL with synchronous=FULL: an append that has returned is on the disk. That
costs one wait for the disk a commit, so one thread writes, and whatever has
been asked for while it waited shares its next commit.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from concurrent import futures
import pathlib
import queue
import sqlite3
import threading
from typing import Any

from dare_jax import errors
from dare_jax.server import events as events_lib
from dare_jax.server.stores import base

_SCHEMA = """
CREATE TABLE IF NOT EXISTS users(
  number INTEGER PRIMARY KEY, user TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL,
  total INTEGER NOT NULL, skip INTEGER NOT NULL, floor INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS chunks(
  user INTEGER NOT NULL, number INTEGER NOT NULL, keys BLOB NOT NULL,
  times BLOB NOT NULL, packed BLOB NOT NULL, PRIMARY KEY(user, number));
"""
_VERSION = 1
# Most appends of one commit, so that the first of them does not wait long.
_MOST_IN_COMMIT = 256
_BUSY_SECONDS = 10.0


class SqliteStore(base.Store):
  """A file; another server on the same machine may have it open as well.

  Attributes:
    num_commits: number of commits so far.
  """

  def __init__(self, path: str, max_events: int) -> None:
    super().__init__(max_events)
    self._path = pathlib.Path(path).expanduser()
    self.num_commits = 0
    self._local = threading.local()
    self._open: list[sqlite3.Connection] = []
    self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
    try:
      self._create()
    except (sqlite3.Error, OSError) as error:
      raise errors.UsageError(
        f'--state=sqlite:{path}: {error}; expected a file that this server'
        ' made, or a path where it may make one.'
      ) from None
    self._writer = threading.Thread(
      target=self._write, name='sqlite-writer', daemon=True
    )
    self._writer.start()

  def _create(self) -> None:
    connection = self._connect()
    version = connection.execute('PRAGMA user_version').fetchone()[0]
    if version not in (0, _VERSION):
      raise OSError(f'it has the format {version}, not {_VERSION}')
    connection.execute('PRAGMA journal_mode=WAL')
    connection.executescript(_SCHEMA)
    connection.execute(f'PRAGMA user_version={_VERSION}')

  def _connect(self) -> sqlite3.Connection:
    connection = sqlite3.connect(
      self._path,
      timeout=_BUSY_SECONDS,
      isolation_level=None,
      check_same_thread=False,
    )
    connection.execute('PRAGMA synchronous=FULL')
    # What is deleted is overwritten: people ask to be forgotten.
    connection.execute('PRAGMA secure_delete=ON')
    self._open.append(connection)
    return connection

  def _reader(self) -> sqlite3.Connection:
    if not hasattr(self._local, 'connection'):
      self._local.connection = self._connect()
    return self._local.connection

  def append(self, user: str, events: events_lib.Events) -> base.Appended:
    return self._do(lambda db: _append(db, user, events, self.max_events))

  def delete(self, user: str) -> bool:
    return self._do(lambda db: _delete(db, user), is_delete=True)

  def _do(
    self, work: Callable[[sqlite3.Connection], Any], is_delete: bool = False
  ) -> Any:
    write = _Write(work, futures.Future(), is_delete)
    self._queue.put(write)
    try:
      return write.done.result()
    except sqlite3.Error as error:
      raise base.StoreError(f'{self._path}: {error}') from error

  def _write(self) -> None:
    """Commits what is queued, as much as there is at a time."""
    connection = self._connect()
    while (first := self._queue.get()) is not None:
      group: list[_Write] = [first]
      while len(group) < _MOST_IN_COMMIT and not self._queue.empty():
        more = self._queue.get()
        if more is None:
          self._queue.put(None)
          break
        group.append(more)
      _commit(connection, group)
      self.num_commits += 1

  def head(self, user: str) -> base.Head | None:
    with _told(self._path):
      row = self._reader().execute(_HEAD, (user,)).fetchone()
    return None if row is None else base.Head(*row[1:])

  def read(
    self, user: str, last: int | None = None
  ) -> tuple[base.Head, events_lib.Events] | None:
    """Returns the newest events and the head, see `Store.read`."""
    connection = self._reader()
    with _told(self._path), _Snapshot(connection):
      row = connection.execute(_HEAD, (user,)).fetchone()
      if row is None:
        return None
      number, head = row[0], base.Head(*row[1:])
      lengths = connection.execute(_LENGTHS, (number,)).fetchall()
      first, count = base.newest(head, [size // 8 for _, size in lengths], last)
      chunks: list[tuple[Any, ...]] = []
      if first < len(lengths):
        chunks = connection.execute(
          _CHUNKS, (number, lengths[first][0])
        ).fetchall()
    events = events_lib.join(
      [base.unpack(base.Part(*chunk[:3]), chunk[3]) for chunk in chunks]
    )
    return head, events.cut(len(events) - count)

  def users(self, limit: int) -> list[str]:
    with _told(self._path):
      rows = self._reader().execute('SELECT user FROM users LIMIT ?', (limit,))
      return [user for (user,) in rows]

  def close(self) -> None:
    """Waits for the writes under way, then closes the file."""
    self._queue.put(None)
    self._writer.join()
    for connection in self._open:
      connection.close()


_HEAD = 'SELECT number, epoch, total, skip, floor FROM users WHERE user = ?'
_LENGTHS = (
  'SELECT number, length(times) FROM chunks WHERE user = ? ORDER BY number'
)
_PARTS = 'SELECT number, keys, times FROM chunks WHERE user = ? ORDER BY number'
_CHUNKS = (
  'SELECT number, keys, times, packed FROM chunks WHERE user = ?'
  ' AND number >= ? ORDER BY number'
)


class _Write:
  """Something to write, and the future of what it returns."""

  def __init__(
    self,
    work: Callable[[sqlite3.Connection], Any],
    done: futures.Future[Any],
    is_delete: bool,
  ) -> None:
    self.work, self.done, self.is_delete = work, done, is_delete


class _Snapshot:
  """All reads within it are of one moment."""

  def __init__(self, connection: sqlite3.Connection) -> None:
    self._connection = connection

  def __enter__(self) -> None:
    self._connection.execute('BEGIN')

  def __exit__(self, *unused: Any) -> None:
    self._connection.execute('COMMIT')


class _told:
  """Makes SQLite's errors those of a store."""

  def __init__(self, path: pathlib.Path) -> None:
    self._path = path

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind: Any, error: Any, unused_trace: Any) -> None:
    if isinstance(error, sqlite3.Error):
      raise base.StoreError(f'{self._path}: {error}') from error


def _commit(connection: sqlite3.Connection, group: Sequence[_Write]) -> None:
  """Does all of a group in one transaction; all fail, or none does."""
  try:
    connection.execute('BEGIN IMMEDIATE')
    answers = [write.work(connection) for write in group]
    connection.execute('COMMIT')
  except Exception as error:
    if connection.in_transaction:
      connection.execute('ROLLBACK')
    for write in group:
      write.done.set_exception(error)
    return
  if any(write.is_delete for write in group):
    # The write-ahead log still holds deleted rows; readers may delay this.
    connection.execute('PRAGMA wal_checkpoint(TRUNCATE)')
  for write, answer in zip(group, answers, strict=True):
    write.done.set_result(answer)


def _append(
  db: sqlite3.Connection, user: str, events: events_lib.Events, most: int
) -> base.Appended:
  row = db.execute(_HEAD, (user,)).fetchone()
  number = None if row is None else row[0]
  parts = [base.Part(*one) for one in db.execute(_PARTS, (number,))]

  def load(wanted: Sequence[base.Part]) -> list[events_lib.Events]:
    if not wanted:
      return []
    rows = db.execute(_CHUNKS, (number, wanted[0].number)).fetchall()
    return [base.unpack(base.Part(*one[:3]), one[3]) for one in rows]

  head = None if row is None else base.Head(*row[1:])
  change = base.plan_append(head, parts, load, events, most)
  if not change.appended.accepted:
    return change.appended
  fields = change.head.epoch, change.head.total, change.head.skip
  number = db.execute(
    'INSERT INTO users(user, epoch, total, skip, floor) VALUES(?, ?, ?, ?, ?)'
    ' ON CONFLICT(user) DO UPDATE SET epoch=excluded.epoch,'
    ' total=excluded.total, skip=excluded.skip, floor=excluded.floor'
    ' RETURNING number',
    (user, *fields, change.head.floor),
  ).fetchone()[0]
  db.executemany(
    'DELETE FROM chunks WHERE user = ? AND number = ?',
    [(number, one) for one in change.removed],
  )
  db.executemany(
    'INSERT OR REPLACE INTO chunks VALUES(?, ?, ?, ?, ?)',
    [
      (number, one, chunk.keys, chunk.times.tobytes(), base.pack(chunk.values))
      for one, chunk in change.written.items()
    ],
  )
  return change.appended


def _delete(db: sqlite3.Connection, user: str) -> bool:
  row = db.execute(_HEAD, (user,)).fetchone()
  if row is None:
    return False
  db.execute('DELETE FROM chunks WHERE user = ?', (row[0],))
  db.execute('DELETE FROM users WHERE number = ?', (row[0],))
  return True
