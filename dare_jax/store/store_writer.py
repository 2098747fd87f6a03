"""Writes history stores; what is in place stays until the new one is whole."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import polars as pl

from dare_jax.logs import id_map
from dare_jax.store import history_store


class StoreWriter:
  """Writes a store from users' examples; nothing appears until `commit`."""

  def __init__(
    self,
    path: pathlib.Path,
    fields: tuple[str, ...],
    context_fields: tuple[str, ...],
    has_labels: bool,
    numbers: tuple[str, ...] = (),
    sets: Mapping[str, str] | None = None,
    user_fields: tuple[str, ...] = (),
  ) -> None:
    self._path = path
    # Its own for each process: two may prepare the same log at once.
    self._tmp = path.with_name(f'{path.name}.{os.getpid()}.incomplete')
    shutil.rmtree(self._tmp, ignore_errors=True)
    self._tmp.mkdir(parents=True)
    self._fields = fields
    self._context_fields = context_fields
    self._has_labels = has_labels
    self._numbers = numbers
    self._sets = dict(sets or {})
    self._user_fields = user_fields
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
  ) -> history_store.HistoryStore:
    """Writes everything, renames the folder into place and opens it.

    Args:
      raw_ids: field -> series of raw values; position i has the dense id i + 2.
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
    arrays['behaviors/sorted_item_id'] = sort_in_users(
      arrays['behaviors/item_id'], arrays['behaviors/offsets']
    )
    self._write_raw_ids(raw_ids)
    if truth is not None:
      shutil.copytree(truth, self._tmp / 'truth')
    beside = {
      str(file.relative_to(self._tmp)): history_store.file_checksum(file)
      for file in sorted(self._tmp.rglob('*'))
      if file.is_file()
    }
    files = self._write_columns(arrays)
    manifest = {
      'format_version': history_store.FORMAT_VERSION,
      'fields': self._fields,
      'context_fields': self._context_fields,
      'has_labels': self._has_labels,
      'numbers': self._numbers,
      **({'sets': self._sets} if self._sets else {}),
      **({'user_fields': self._user_fields} if self._user_fields else {}),
      'vocab_sizes': vocab,
      'unknown_id': id_map.UNKNOWN,
      'files': files,
      'files_beside': beside,
      'fingerprint': history_store.fingerprint_of(files, vocab),
      'provenance': dict(provenance),
    }
    text = json.dumps(manifest, indent=1)
    (self._tmp / history_store.MANIFEST).write_text(text)
    self._replace()
    return history_store.open_store(self._path)

  def _write_raw_ids(self, raw_ids: Mapping[str, pl.Series]) -> None:
    (self._tmp / 'raw_ids').mkdir()
    for field, raw in raw_ids.items():
      raw.alias('raw').to_frame().write_parquet(
        self._tmp / 'raw_ids' / f'{field}.parquet'
      )

  def _write_columns(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes each column; returns the manifest's entries."""
    files = {}
    for name, array in sorted(arrays.items()):
      file = self._tmp / f'{name}.npy'
      file.parent.mkdir(exist_ok=True)
      np.save(file, array, allow_pickle=False)
      files[name] = {
        'shape': list(array.shape),
        'dtype': str(array.dtype),
        'crc32': history_store.checksum(array),
      }
    return files

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


def sort_in_users(items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """Returns each user's items in ascending order."""
  user = np.repeat(
    np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets)
  )
  frame = pl.DataFrame({'user': user, 'item': items})
  return frame.sort('user', 'item')['item'].to_numpy()
