"""The files of a workdir, on a disk or in a bucket.

A bucket (`gs://`) holds objects that appear whole and can be neither
appended to nor renamed. What a disk refuses, for want of room or rights, is
one line to the user.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import io
import os
import time

from etils import epath

from dare_jax import disk_path
from dare_jax import errors

_UPLOAD_SECONDS = 30.0


def locate(path: epath.PathLike) -> epath.Path:
  """Returns a path that may be one in a bucket; `~` is the user's home."""
  if is_remote(path):
    return epath.Path(path)
  return disk_path.absolute(path)


def is_remote(path: epath.PathLike) -> bool:
  """Whether a path is one in a bucket."""
  return '://' in os.fspath(path)


def make_folder(path: epath.Path) -> None:
  """Makes a folder, and those above it, if they are not there.

  Raises:
    UsageError: it cannot be made.
  """
  with told(path):
    path.mkdir(parents=True, exist_ok=True)


def read(path: epath.Path) -> bytes | None:
  """Returns what a file holds, or None if there is none.

  Raises:
    UsageError: it cannot be read.
  """
  try:
    with told(path, 'read'):
      return path.read_bytes()
  except (FileNotFoundError, NotADirectoryError):
    return None


def names(path: epath.Path) -> list[str]:
  """Returns the names in a folder; none if it is not there.

  Raises:
    UsageError: it cannot be read.
  """
  try:
    with told(path, 'read'):
      return [entry.name for entry in path.iterdir()]
  except (FileNotFoundError, NotADirectoryError):
    return []


def write(path: epath.Path, content: bytes) -> None:
  """Writes a file that is there whole or not at all, whenever one looks.

  Raises:
    UsageError: it cannot be written.
  """
  with told(path):
    if is_remote(path):
      path.write_bytes(content)
      return
    temporary = path.with_name(f'{path.name}.tmp')
    with open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)


class GrowingFile:
  """A file that grows by whole entries; none that `sync` saw is ever lost.

  In a bucket, the object is written anew now and then.
  """

  def __init__(self, path: epath.Path, content: bytes = b'') -> None:
    """Makes the file.

    Args:
      path: the path of the file.
      content: what it holds at first.

    Raises:
      UsageError: it cannot be written; the methods raise the same.
    """
    self._path = path
    self._entries = [content]
    self._file: io.FileIO | None = None
    write(path, content)
    self._written = time.monotonic()
    if not is_remote(path):
      self._entries.clear()
      with told(path):
        self._file = open(path, 'ab', buffering=0)

  def append(self, entry: bytes) -> None:
    """Adds an entry."""
    if self._file is None:
      self._entries.append(entry)
      if time.monotonic() - self._written > _UPLOAD_SECONDS:
        self.sync()
      return
    with told(self._path):
      rest = memoryview(entry)
      while rest:  # A disk that is nearly full may write a part of it.
        rest = rest[self._file.write(rest) :]

  def sync(self) -> None:
    """Returns once all entries would survive a crash of this machine."""
    if self._file is not None:
      with told(self._path):
        os.fsync(self._file.fileno())
      return
    if len(self._entries) > 1:
      self._entries = [b''.join(self._entries)]
      write(self._path, self._entries[0])
      self._written = time.monotonic()

  def close(self) -> None:
    self.sync()
    if self._file is not None:
      self._file.close()


@contextlib.contextmanager
def told(path: epath.Path, done: str = 'written') -> Iterator[None]:
  """Turns what a disk or a bucket refuses into a UsageError."""
  try:
    yield
  except ImportError as error:
    raise errors.UsageError(
      f'{path}: {error}: {errors.install("gcs")}, for gs://.'
    ) from None
  except Exception as error:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    if done == 'read' and missing:
      raise
    if not (isinstance(error, OSError) or is_remote(path)):
      raise
    reason = getattr(error, 'strerror', None) or str(error)
    raise errors.UsageError(
      f'{path}: cannot be {done} ({reason}); make room or mend it and run the'
      ' same command, which goes on from the newest checkpoint, or choose'
      ' another folder.'
    ) from None
