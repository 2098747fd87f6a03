"""The history store: every event once, memory-mapped, checked when opened.

A store is a folder of `.npy` columns over all events (users in order, each
user's events in time order), per-user offsets, the raw values of the dense
ids, and `manifest.json` with sizes, checksums, provenance and a fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import hashlib
import json
import pathlib
import tokenize
from typing import Any
import zlib

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.logs import id_map

FORMAT_VERSION = 1
MANIFEST = 'manifest.json'
_CHUNK = 1 << 22
# What `np.load` raises on a damaged file, its header included.
_UNREADABLE = (
  ValueError,
  TypeError,
  OverflowError,
  OSError,
  EOFError,
  SyntaxError,
  tokenize.TokenError,
)


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of all users, ragged by `offsets` (int64 [users + 1])."""

  offsets: np.ndarray
  columns: Mapping[str, np.ndarray]

  def __len__(self) -> int:
    return int(self.offsets[-1])

  def slice(self, user: int) -> slice:
    return slice(int(self.offsets[user]), int(self.offsets[user + 1]))


@dataclasses.dataclass(frozen=True)
class HistoryStore:
  """An open store.

  Attributes:
    path: the folder of the store.
    manifest: what `manifest.json` holds.
    behaviors: `<field>_id` int32, `timestamp`, and `sorted_item_id`: each
      user's item ids in ascending order, for membership tests.
    impressions: None, or `<field>_id`, `timestamp`, `label` of logged
      impressions.
    item_values: field -> int32 [items], the value last seen with each item.
  """

  path: pathlib.Path
  manifest: Mapping[str, Any]
  behaviors: Table
  impressions: Table | None
  item_values: Mapping[str, np.ndarray]

  @property
  def num_users(self) -> int:
    return len(self.behaviors.offsets) - 1

  @property
  def fields(self) -> tuple[str, ...]:
    """Fields of a behavior: item, category and the further ones."""
    return tuple(self.manifest['fields'])

  @property
  def context_fields(self) -> tuple[str, ...]:
    return tuple(self.manifest['context_fields'])

  @property
  def user_fields(self) -> tuple[str, ...]:
    """Those of the context fields that are known for a user."""
    return tuple(self.manifest.get('user_fields', ()))

  def user_values(self, field: str) -> np.ndarray:
    """Returns int32 [users], what each user had last of a user field."""
    table = self.impressions or self.behaviors
    column, stop = table.columns[f'{field}_id'], table.offsets[1:]
    found = np.full(self.num_users, id_map.UNKNOWN, np.int32)
    is_there = stop > table.offsets[:-1]
    found[is_there] = column[stop[is_there] - 1]
    return found

  @property
  def numbers(self) -> tuple[str, ...]:
    """Fields whose values are `logs.values.number_ranges`."""
    return tuple(self.manifest.get('numbers', ()))

  @property
  def sets(self) -> dict[str, str]:
    """Field -> separator, where values are `logs.values.set_values`."""
    return dict(self.manifest.get('sets', {}))

  @property
  def vocab_sizes(self) -> dict[str, int]:
    """Table rows by field, padding and unknown rows included."""
    return dict(self.manifest['vocab_sizes'])

  @property
  def fingerprint(self) -> str:
    return str(self.manifest['fingerprint'])

  def check_beside(self, name: str) -> None:
    """Checks files beside the columns, which are not read when it is opened.

    Args:
      name: the name of a file, or of a folder of files, below the store's.

    Raises:
      UsageError: one is missing, or not as it was written.
    """
    # Stores of before these checksums have none.
    for file, crc32 in self.manifest.get('files_beside', {}).items():
      if not (file == name or file.startswith(f'{name}/')):
        continue
      try:
        is_intact = file_checksum(self.path / file) == crc32
      except OSError as error:
        raise _refuse(self.path, f'{file}: {_one_line(error)}') from None
      if not is_intact:
        raise _refuse(self.path, f'{file} does not match its checksum')

  def raw_ids(self, field: str) -> pl.Series:
    """Returns the raw values of a field; row i has the dense id i + 2."""
    file = f'raw_ids/{field}.parquet'
    self.check_beside(file)
    try:
      raw = pl.read_parquet(self.path / file, glob=False)['raw']
    except (pl.exceptions.PolarsError, OSError) as error:
      raise _refuse(self.path, f'{file}: {_one_line(error)}') from None
    if len(raw) + id_map.FIRST != self.vocab_sizes[field]:
      raise _refuse(
        self.path,
        f'{file} has {len(raw)} values where the manifest says'
        f' {self.vocab_sizes[field] - id_map.FIRST}',
      )
    return raw


def _refuse(path: pathlib.Path, what: str) -> errors.UsageError:
  return errors.UsageError(
    f'history store {path}: {what}; remove the folder and prepare it again.'
  )


def _one_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0]


def open_store(path: pathlib.Path) -> HistoryStore:
  """Opens and validates a store: sizes, checksums, offsets, id ranges.

  Raises:
    UsageError: missing, damaged, inconsistent, or from a newer version.
  """
  if not (path / MANIFEST).is_file():
    raise _refuse(path, f'no {MANIFEST}')
  try:
    manifest = json.loads((path / MANIFEST).read_text())
    version = manifest['format_version']
  except (ValueError, KeyError, TypeError):
    raise _refuse(path, f'{MANIFEST} is not readable') from None
  if version != FORMAT_VERSION:
    raise errors.UsageError(
      f'history store {path}: format version {version}, but this dare_jax'
      f' reads version {FORMAT_VERSION}; upgrade dare_jax, or prepare the'
      ' data again in another data_dir.'
    )
  _check_manifest(path, manifest)
  arrays = {
    name: _open_column(path, name, entry)
    for name, entry in manifest['files'].items()
  }
  store = HistoryStore(
    path,
    manifest,
    _table(arrays, 'behaviors'),
    _table(arrays, 'impressions') if manifest['has_labels'] else None,
    {
      name.split('/')[1]: array
      for name, array in arrays.items()
      if name.startswith('item_values/')
    },
  )
  _check_consistency(store)
  return store


def fingerprint_at(path: pathlib.Path) -> str | None:
  """Returns what the manifest of a store says; None if none can be read."""
  try:
    return json.loads((path / MANIFEST).read_text())['fingerprint']
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _check_manifest(path: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Refuses a manifest that is incomplete or not the one that was written."""
  try:
    digest = fingerprint_of(manifest['files'], manifest['vocab_sizes'])
    is_intact = digest == manifest['fingerprint']
    expected = _column_names(
      manifest['fields'], manifest['context_fields'], manifest['has_labels']
    )
  except (KeyError, TypeError) as error:
    raise _refuse(path, f'{MANIFEST} is incomplete ({error})') from None
  if not is_intact:
    raise _refuse(path, f'{MANIFEST} does not match its fingerprint')
  if expected != set(manifest['files']):
    raise _refuse(path, f'{MANIFEST} does not list the columns of its fields')


def _column_names(
  fields: Iterable[str], context_fields: Iterable[str], has_labels: bool
) -> set[str]:
  own = [f'{field}_id' for field in fields]
  every = [*own, *(f'{field}_id' for field in context_fields)]
  common = ['offsets', 'timestamp']
  behaviors = [*common, 'sorted_item_id', *(own if has_labels else every)]
  names = {f'behaviors/{name}' for name in behaviors}
  names |= {f'item_values/{field}' for field in fields if field != 'item'}
  if has_labels:
    names |= {f'impressions/{name}' for name in [*common, 'label', *every]}
  return names


def _table(arrays: Mapping[str, np.ndarray], name: str) -> Table:
  columns = {
    key.split('/')[1]: value
    for key, value in arrays.items()
    if key.startswith(f'{name}/')
  }
  offsets = np.asarray(columns.pop('offsets'))
  return Table(offsets, columns)


def _open_column(
  path: pathlib.Path, name: str, entry: Mapping[str, Any]
) -> np.ndarray:
  file = path / f'{name}.npy'
  try:
    array = np.load(file, mmap_mode='r', allow_pickle=False)
  except FileNotFoundError:
    raise _refuse(path, f'{name}.npy is missing') from None
  except _UNREADABLE as error:
    raise _refuse(path, f'{name}.npy is damaged ({_one_line(error)})') from None
  expected = (tuple(entry['shape']), entry['dtype'])
  if (array.shape, str(array.dtype)) != expected:
    raise _refuse(
      path,
      f'{name}.npy has shape and dtype {array.shape}, {array.dtype} where'
      f' the manifest says {expected[0]}, {expected[1]}',
    )
  if checksum(array) != entry['crc32']:
    raise _refuse(path, f'{name}.npy does not match its checksum')
  return array


def checksum(array: np.ndarray) -> int:
  """Returns the CRC-32 of an array's values."""
  crc = 0
  for start in range(0, len(array), _CHUNK):
    chunk = np.ascontiguousarray(array[start : start + _CHUNK])
    crc = zlib.crc32(chunk.view(np.uint8).data, crc)
  return crc


def file_checksum(path: pathlib.Path) -> int:
  """Returns the CRC-32 of a file."""
  crc = 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      crc = zlib.crc32(chunk, crc)
  return crc


def _check_consistency(store: HistoryStore) -> None:
  for table in (store.behaviors, store.impressions):
    if table is None:
      continue
    offsets = table.offsets
    rows = {len(column) for column in table.columns.values()}
    if (
      not len(offsets)
      or offsets[0] != 0
      or (np.diff(offsets) < 0).any()
      or rows != {int(offsets[-1])}
      or len(offsets) != store.num_users + 1
    ):
      raise _refuse(store.path, 'offsets and columns disagree')
    for name, column in table.columns.items():
      field = name.removeprefix('sorted_').removesuffix('_id')
      if field not in store.vocab_sizes:
        continue
      size = store.vocab_sizes[field]
      if len(column) and (column.min() < 1 or column.max() >= size):
        raise _refuse(
          store.path,
          f'{name} holds ids from {column.min()} to {column.max()}, outside'
          f' 1 to {size - 1}',
        )
  for field, value in store.item_values.items():
    size = store.vocab_sizes[field]
    if len(value) != store.vocab_sizes['item'] or value.max() >= size:
      raise _refuse(store.path, f'item_values/{field} does not fit its field')


def fingerprint_of(
  files: Mapping[str, Any], vocab_sizes: Mapping[str, int]
) -> str:
  """Returns what identifies the contents of a store."""
  text = json.dumps([files, dict(vocab_sizes)], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
