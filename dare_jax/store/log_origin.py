"""Which log a store was made from, so that another is not taken for it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any
import zlib

from dare_jax import errors
from dare_jax.logs import log_files
from dare_jax.logs import options
from dare_jax.store import history_store

_SAMPLES = 64  # pieces of a file that are looked at
_ALL_SAMPLES = 1024  # of all files, but two of each
_SAMPLE_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Origin:
  """A raw log, whatever its files, as it was when it was looked at.

  Attributes:
    path: the absolute path.
    given: the path, or pattern, as it was named.
    size: bytes of all files together.
    crc32: the CRC-32 of pieces spread over each file; of a file of up to 4 MB,
      of all its bytes.
    files: names and sizes in bytes of the files of a folder or pattern, in
      order; empty for a log in one file, which may be renamed, or if it was not
      recorded.
  """

  path: str
  given: str
  size: int
  crc32: int
  files: tuple[tuple[str, int], ...] = ()

  def has_content_of(self, other: Origin) -> bool:
    """Returns whether two origins are the same bytes under the same names."""
    has_names = self.files and other.files
    return (self.size, self.crc32) == (other.size, other.crc32) and (
      not has_names or self.files == other.files
    )


def look_at(given: str | None) -> Origin | None:
  """Returns the origin that a path names; None if nothing can be read there."""
  if not given:
    return None
  try:
    parts = log_files.listed(given)
    sizes = [part.path.stat().st_size for part in parts]
    samples = min(_SAMPLES, max(2, _ALL_SAMPLES // len(parts)))
    crc = 0
    for part in parts:
      crc = _sampled_crc32(part.path, crc, samples)
  except OSError:
    return None
  names = [part.name for part in parts]
  is_one = len(parts) == 1 and not parts[0].partition
  files = () if is_one else tuple(zip(names, sizes, strict=True))
  return Origin(str(_absolute(given)), given, sum(sizes), crc, files)


def _absolute(given: str) -> pathlib.Path:
  return pathlib.Path(os.path.abspath(pathlib.Path(given).expanduser()))


def _sampled_crc32(file: pathlib.Path, crc: int, samples: int) -> int:
  """Continues a CRC-32 by pieces of a file, from its first byte to its last."""
  size = file.stat().st_size
  if size <= samples * _SAMPLE_BYTES:
    starts = list(range(0, size, _SAMPLE_BYTES))
  else:
    last = size - _SAMPLE_BYTES
    starts = [number * last // (samples - 1) for number in range(samples)]
  with file.open('rb') as opened:
    for start in starts:
      opened.seek(start)
      crc = zlib.crc32(opened.read(_SAMPLE_BYTES), crc)
  return crc


def path_of(store: history_store.HistoryStore) -> str | None:
  """Returns the path of the log that a store was made from, if it says so."""
  made_from = of_store(store)
  return None if made_from is None else made_from.path


def still_there(store: history_store.HistoryStore) -> str | None:
  """Returns the path of the log of a store, if it is there as it was."""
  made_from = _recorded(store.manifest)
  if made_from is None:
    return None
  found = look_at(made_from.path)
  is_same = found is not None and found.has_content_of(made_from)
  return made_from.path if is_same else None


def of_store(store: history_store.HistoryStore) -> Origin | None:
  """Returns the log that a store was made from, if it says so."""
  return _recorded(store.manifest)


def _recorded(manifest: Mapping[str, Any]) -> Origin | None:
  origin = manifest['provenance'].get('origin')
  if origin is None:
    return None
  files = tuple((name, size) for name, size in origin.get('files', ()))
  return Origin(**origin | {'files': files})


def replaced(path: pathlib.Path, new: Origin | None) -> str:
  """Returns what to say of another log's store at `path`, '' if none is."""
  try:
    manifest = json.loads((path / history_store.MANIFEST).read_text())
    old = _recorded(manifest)
  except (OSError, ValueError, KeyError, TypeError):
    return ''  # There is none, or a damaged one.
  if old is None or new is None or new.has_content_of(old):
    return ''
  return (
    f', in place of what was prepared there from {old.path}: runs trained on'
    ' that will need it prepared again'
  )


def check(data: options.LogOptions, store: history_store.HistoryStore) -> None:
  """Checks that `data.input` is the log that a store was made from.

  That log may have been moved, or removed: its data is in the store.

  Raises:
    UsageError: it is another log, or has changed since.
  """
  made_from = of_store(store)
  if not data.input or made_from is None:
    return
  path, found = str(_absolute(data.input)), look_at(data.input)
  if found is None and (
    path == made_from.path or data.input == made_from.given
  ):
    return
  if found is not None and found.has_content_of(made_from):
    return
  if path == made_from.path:
    raise errors.UsageError(
      f'data.input={data.input} has changed since the data in {store.path} was'
      f' prepared from it{_sizes(made_from, found)}; prepare it anew with'
      ' python -m dare_jax.prepare, give it another --config.data.data_dir=DIR,'
      ' or leave data.input out to go on with what was prepared.'
    )
  raise errors.UsageError(
    f'data.input={data.input}: {"another log" if found else "no such file"};'
    f' the data in {store.path} was prepared from {made_from.path}. Give each'
    ' log a --config.data.data_dir=DIR of its own, prepare this one in its'
    ' place with python -m dare_jax.prepare, or leave data.input out to go on'
    ' with what was prepared.'
  )


def _sizes(old: Origin, new: Origin | None) -> str:
  if new is None or new.size == old.size:
    return ''
  return f' ({old.size:,} bytes then, {new.size:,} now)'
