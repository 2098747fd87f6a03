"""Locks of folders on a disk: one holder, gone with its process."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import io
import json
import os
import pathlib
import shlex
import socket
import sys
import time
import uuid
import weakref

# The errors of a file system without locks.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_READ_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Holder:
  """A process that holds a lock; `since` is a local time with its offset."""

  host: str
  pid: int
  since: str
  command: str
  token: str

  @classmethod
  def this_process(cls) -> Holder:
    """Returns this process as a holder from now on, unlike any before."""
    return cls(
      socket.gethostname(),
      os.getpid(),
      str(datetime.datetime.now().astimezone().replace(microsecond=0)),
      shlex.join(sys.orig_argv),
      uuid.uuid4().hex,
    )

  @classmethod
  def parse(cls, content: bytes | None) -> Holder | None:
    """Returns the holder that wrote `content`; None if none can be read."""
    try:
      return cls(**json.loads(content or b''))
    except (ValueError, TypeError):
      return None

  @property
  def has_ended(self) -> bool:
    """Whether the process is one of this host, and is no more."""
    if self.host != socket.gethostname():
      return False
    try:
      os.kill(self.pid, 0)
    except ProcessLookupError:
      return True
    except OSError:  # The process exists, and belongs to another user.
      pass
    return False

  def to_bytes(self) -> bytes:
    return json.dumps(dataclasses.asdict(self), indent=1).encode()

  def __str__(self) -> str:
    return f'process {self.pid} on {self.host}, since {self.since}'


def describe(holder: Holder | None) -> str:
  """Returns who holds a lock and since when, as far as it can be read."""
  return 'another process' if holder is None else str(holder)


class HeldError(Exception):
  """Another process holds the lock: `holder`, None if it did not say who."""

  def __init__(self, holder: Holder | None) -> None:
    super().__init__(describe(holder))
    self.holder = holder


class UnsupportedError(Exception):
  """The file system has no locks."""


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
  """A lock of this process from the making of the object to `release`.

  The kernel frees it when the process ends, however it ends. Processes that
  this one starts do not inherit it. On NFS, Linux makes it a lock of the
  server.
  """

  def __init__(self, path: os.PathLike[str]) -> None:
    """Takes the lock.

    Args:
      path: the file of the lock, which is made, and removed by `release`; its
        folder must be there.

    Raises:
      HeldError: another process has it, or this one.
      UnsupportedError: as it says.
      OSError: the file cannot be made.
    """
    self._path = pathlib.Path(path)
    while not self._try():
      pass
    holder = Holder.this_process()
    # A full disk: the lock holds, though it does not say whose it is.
    with contextlib.suppress(OSError):
      self._file.truncate(0)
      self._file.write(holder.to_bytes())
    _held.add(self)

  def _try(self) -> bool:
    """Returns False if the file was removed by the holder before."""
    self._file = io.FileIO(self._path, 'r+', opener=_open)
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if self._is_in_place():
        return True
    except BlockingIOError:
      holder = _read(self._file)
      self._file.close()
      raise HeldError(holder) from None
    except OSError as error:
      self._file.close()
      if error.errno in _UNSUPPORTED:
        raise UnsupportedError(str(error)) from None
      raise
    self._file.close()
    return False

  def _is_in_place(self) -> bool:
    try:
      there, ours = os.stat(self._path), os.fstat(self._file.fileno())
    except FileNotFoundError:
      return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

  def fileno(self) -> int:
    """Returns the open file: a process that inherits it holds the lock, too."""
    return self._file.fileno()

  def release(self) -> None:
    """Frees the lock and removes its file; a second call does nothing."""
    if self in _held:
      # A disk that has become read-only: the file stays, and means nothing.
      with contextlib.suppress(OSError):
        if self._is_in_place():
          self._path.unlink()
      self.forget()

  def forget(self) -> None:
    """Closes the file; in a forked process, that leaves the lock as it is."""
    _held.discard(self)
    self._file.close()


def _open(path: str, how: int) -> int:
  return os.open(path, how | os.O_CREAT, 0o644)


def _forget_all() -> None:
  for lock in list(_held):
    lock.forget()


os.register_at_fork(after_in_child=_forget_all)


def _read(file: io.FileIO) -> Holder | None:
  """Returns what a holder has written, which may take it a moment."""
  deadline = time.monotonic() + _READ_SECONDS
  while True:
    holder = Holder.parse(os.pread(file.fileno(), 1 << 16, 0))
    if holder is not None or time.monotonic() > deadline:
      return holder
    time.sleep(0.01)
