"""Opens files of text whether they are compressed or not, by their content."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import gzip
import pathlib
from typing import Any
import zlib

from dare_jax import errors

_GZIP = b'\x1f\x8b'
# A frame of data, or one that others put before it (of any of 16 kinds).
_ZSTD = (
  b'\x28\xb5\x2f\xfd',
  *(bytes([low]) + b'\x2a\x4d\x18' for low in range(0x50, 0x60)),
)
PARQUET = b'PAR1'
_HEAD_BYTES = 1 << 20
# How files begin that hold no text that we could read.
_REFUSED = {
  b'PK\x03\x04': 'a zip archive',
  b'BZh': 'compressed by bzip2',
  b'\xfd7zXZ\x00': 'compressed by xz',
  b'7z\xbc\xaf\x27\x1c': 'a 7z archive',
  b'\x04\x22\x4d\x18': 'compressed by lz4',
  b'\xff\x06\x00\x00sNaPpY': 'compressed by snappy',
  b'\x1f\x9d': 'compressed by compress',
  b'Rar!\x1a\x07': 'a rar archive',
  b'ORC': 'an ORC file',
  b'Obj\x01': 'an Avro file',
  b'ARROW1': 'an Arrow file',
  b'SQLite format 3\x00': 'an SQLite database',
  b'\x89HDF\r\n\x1a\n': 'an HDF5 file',
}


def is_parquet(path: pathlib.Path) -> bool:
  """Returns whether a file is Parquet, by its first bytes or its name.

  Raises:
    UsageError: it cannot be read.
  """
  return path.suffix.lower() == '.parquet' or _magic(path).startswith(PARQUET)


def _magic(path: pathlib.Path) -> bytes:
  try:
    with path.open('rb') as file:
      return file.read(16)
  except OSError as error:
    raise errors.UsageError(
      f'{path}: cannot be read ({error.strerror}).'
    ) from None


@contextlib.contextmanager
def open_text(path: pathlib.Path) -> Iterator[Any]:
  """Opens a file of text, gzip or zstd taken off; it has `read(size)`.

  Which of them it is its first bytes say, not its name. A read may give fewer
  bytes than asked for; it gives none at the end.

  Raises:
    UsageError: a file of another kind, or, also while it is read, damaged.
  """
  magic = _magic(path)
  for start, kind in _REFUSED.items():
    if magic.startswith(start):
      raise _other_kind(path, kind)
  opener: Callable[[pathlib.Path], Any] = _open_plain
  damage = ''
  if magic.startswith(_GZIP):
    opener, damage = gzip.open, 'gzip'
  elif magic.startswith(_ZSTD):
    opener, damage = _open_zstd, 'zstd'
  with opener(path) as file:
    try:
      yield file
    except (EOFError, OSError, zlib.error) as error:
      if not damage:
        raise
      raise errors.UsageError(
        f'{path}: damaged {damage} file ({error}); fetch it again, or pack it'
        ' anew.'
      ) from None


def _other_kind(path: pathlib.Path, kind: str) -> errors.UsageError:
  return errors.UsageError(
    f'{path}: is {kind}; expected text (CSV), plain or compressed by gzip or'
    ' zstd, or Parquet. Unpack or convert it.'
  )


def _open_plain(path: pathlib.Path) -> Any:
  return path.open('rb')


def _open_zstd(path: pathlib.Path) -> Any:
  import pyarrow as pa  # Importing it takes as long as reading a small log.

  return pa.input_stream(str(path), compression='zstd')


def head(path: pathlib.Path) -> bytes:
  """Returns the first bytes of a file of text, a MB of them at most.

  A mark of the byte order is left out.

  Raises:
    UsageError: a file of another kind, or damaged.
  """
  with open_text(path) as file:
    found = read(file, _HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
  if found.startswith(PARQUET):
    raise _other_kind(path, 'compressed Parquet')
  if found[257:262] == b'ustar':
    raise _other_kind(path, 'a tar archive')
  if found.startswith((b'{"', b'[{')):
    raise _other_kind(path, 'JSON')
  return found


def read(file: Any, size: int) -> bytes:
  """Returns the next `size` bytes, fewer only at the end."""
  parts, left = [], size
  while left:
    part = file.read(left)
    if not part:
      break
    parts.append(part)
    left -= len(part)
  return b''.join(parts)
