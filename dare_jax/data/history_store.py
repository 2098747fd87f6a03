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
import shutil
import tokenize
from typing import Any
import zlib

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.data import id_map

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
    path: its folder.
    manifest: `manifest.json`.
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
  def vocab_sizes(self) -> dict[str, int]:
    """Table rows by field, padding and unknown rows included."""
    return dict(self.manifest['vocab_sizes'])

  @property
  def fingerprint(self) -> str:
    return str(self.manifest['fingerprint'])

  def raw_ids(self, field: str) -> pl.Series:
    """Returns the raw values of a field; row i has the dense id i + 2."""
    file = f'raw_ids/{field}.parquet'
    try:
      raw = pl.read_parquet(self.path / file)['raw']
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


def _check_manifest(path: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Refuses a manifest that is incomplete or not the one that was written."""
  try:
    digest = _fingerprint(manifest['files'], manifest['vocab_sizes'])
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
  if _crc(array) != entry['crc32']:
    raise _refuse(path, f'{name}.npy does not match its checksum')
  return array


def _crc(array: np.ndarray) -> int:
  crc = 0
  for start in range(0, len(array), _CHUNK):
    chunk = np.ascontiguousarray(array[start : start + _CHUNK])
    crc = zlib.crc32(chunk.view(np.uint8).data, crc)
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


class StoreWriter:
  """Writes a store from users' examples; nothing appears until `commit`."""

  def __init__(
    self,
    path: pathlib.Path,
    fields: tuple[str, ...],
    context_fields: tuple[str, ...],
    has_labels: bool,
  ) -> None:
    self._path = path
    self._tmp = path.with_name(f'{path.name}.incomplete')
    shutil.rmtree(self._tmp, ignore_errors=True)
    self._tmp.mkdir(parents=True)
    self._fields = fields
    self._context_fields = context_fields
    self._has_labels = has_labels
    self._parts: dict[str, list[np.ndarray]] = {}

  def add(self, examples: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Adds users' events in order."""
    for example in examples:
      label = example['label'] if self._has_labels else None
      every = (*self._fields, *self._context_fields)
      if label is None:
        self._append('behaviors', example, every, slice(None))
      else:
        self._append('behaviors', example, self._fields, label == 1)
        self._append('impressions', example, every, slice(None))
        self._put('impressions/label', label)

  def _append(
    self,
    table: str,
    example: Mapping[str, np.ndarray],
    fields: tuple[str, ...],
    rows: Any,
  ) -> None:
    for name in ('timestamp', *(f'{field}_id' for field in fields)):
      self._put(f'{table}/{name}', example[name][rows])
    count = len(example['timestamp'][rows])
    self._put(f'{table}/offsets', np.array([count], np.int64))

  def _put(self, name: str, values: np.ndarray) -> None:
    self._parts.setdefault(name, []).append(values)

  def commit(
    self,
    raw_ids: Mapping[str, pl.Series],
    provenance: Mapping[str, Any],
    min_item_count: int = 1,
    truth: pathlib.Path | None = None,
  ) -> HistoryStore:
    """Writes everything, renames the folder into place and opens it.

    Args:
      raw_ids: field -> raw values of its dense ids from 2 on.
      provenance: what the manifest says of the origin.
      min_item_count: items with fewer behaviors become the unknown item.
      truth: a folder with the planted truth of a synthetic log, copied.

    Returns:
      The open store.
    """
    arrays = {
      name: np.concatenate(self._parts.pop(name)) for name in list(self._parts)
    }
    for name in [name for name in arrays if name.endswith('/offsets')]:
      arrays[name] = np.concatenate([[0], np.cumsum(arrays[name])])
    for name in [name for name in arrays if name.endswith('/timestamp')]:
      arrays[name] = _narrow(arrays[name])
    raw_ids = dict(raw_ids)
    _fold_rare_items(arrays, raw_ids, min_item_count)
    vocab = {field: len(raw) + id_map.FIRST for field, raw in raw_ids.items()}
    for field in self._fields[1:]:
      arrays[f'item_values/{field}'] = _last_value(arrays, field, vocab['item'])
    arrays['behaviors/sorted_item_id'] = _sort_in_users(
      arrays['behaviors/item_id'], arrays['behaviors/offsets']
    )
    (self._tmp / 'raw_ids').mkdir()
    for field, raw in raw_ids.items():
      raw.alias('raw').to_frame().write_parquet(
        self._tmp / 'raw_ids' / f'{field}.parquet'
      )
    if truth is not None:
      shutil.copytree(truth, self._tmp / 'truth')
    files = {}
    for name, array in sorted(arrays.items()):
      file = self._tmp / f'{name}.npy'
      file.parent.mkdir(exist_ok=True)
      np.save(file, array, allow_pickle=False)
      files[name] = {
        'shape': list(array.shape),
        'dtype': str(array.dtype),
        'crc32': _crc(array),
      }
    manifest = {
      'format_version': FORMAT_VERSION,
      'fields': self._fields,
      'context_fields': self._context_fields,
      'has_labels': self._has_labels,
      'vocab_sizes': vocab,
      'unknown_id': id_map.UNKNOWN,
      'files': files,
      'fingerprint': _fingerprint(files, vocab),
      'provenance': dict(provenance),
    }
    text = json.dumps(manifest, indent=1)
    (self._tmp / MANIFEST).write_text(text)
    self._replace()
    return open_store(self._path)

  def _replace(self) -> None:
    """Moves the new store into place; the old one goes only then."""
    old = self._path.with_name(f'{self._path.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if self._path.exists():
      self._path.rename(old)
    self._tmp.rename(self._path)
    shutil.rmtree(old, ignore_errors=True)

  def discard(self) -> None:
    """Removes what was written; a store already in place stays."""
    self._parts.clear()
    shutil.rmtree(self._tmp, ignore_errors=True)


def _narrow(times: np.ndarray) -> np.ndarray:
  limits = np.iinfo(np.int32)
  if len(times) and times.min() >= limits.min and times.max() <= limits.max:
    return times.astype(np.int32)
  return times


def _fingerprint(
  files: Mapping[str, Any], vocab_sizes: Mapping[str, int]
) -> str:
  text = json.dumps([files, dict(vocab_sizes)], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fold_rare_items(
  arrays: dict[str, np.ndarray], raw_ids: dict[str, pl.Series], minimum: int
) -> None:
  """Maps items with fewer than `minimum` behaviors to the unknown id."""
  if minimum <= 1:
    return
  size = len(raw_ids['item']) + id_map.FIRST
  keep = np.bincount(arrays['behaviors/item_id'], minlength=size) >= minimum
  keep[: id_map.FIRST] = False
  relabel = np.full(size, id_map.UNKNOWN, np.int32)
  relabel[keep] = np.arange(keep.sum(), dtype=np.int32) + id_map.FIRST
  relabel[id_map.PADDING] = id_map.PADDING
  for name in [name for name in arrays if name.endswith('/item_id')]:
    arrays[name] = relabel[arrays[name]]
  kept = pl.Series(keep[id_map.FIRST :])
  raw_ids['item'] = raw_ids['item'].filter(kept)


def _last_value(
  arrays: Mapping[str, np.ndarray], field: str, size: int
) -> np.ndarray:
  """The value of `field` that each item had last, in the store's order.

  The unknown item stands for many; its values are looked up row by row.
  """
  table = 'impressions' if 'impressions/item_id' in arrays else 'behaviors'
  value = np.full(size, id_map.UNKNOWN, np.int32)
  value[arrays[f'{table}/item_id']] = arrays[f'{table}/{field}_id']
  value[: id_map.FIRST] = (id_map.PADDING, id_map.UNKNOWN)
  return value


def _sort_in_users(items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  user = np.repeat(
    np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets)
  )
  frame = pl.DataFrame({'user': user, 'item': items})
  return frame.sort('user', 'item')['item'].to_numpy()
