"""Content vectors of items, prepared: checked once, then mapped into memory.

A prepared set is a folder `item_vectors-FINGERPRINT` beside the history stores:
`vectors.npy`, float32 [items, width], each of length 1, or 0 where the file has
zeros; `items.parquet`, the raw items; and `manifest.json`. It is found by the
hash of the file that it was made of, so that a run goes on without the file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import sys
from typing import Any

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.store import history_store
from dare_jax.store import vector_files

_ITEMS, _VECTORS = 'items.parquet', 'vectors.npy'
_LEAST_LENGTH = 1e-30  # Shorter vectors have no direction.


@dataclasses.dataclass(frozen=True)
class ItemVectors:
  """Prepared vectors.

  Attributes:
    path: the folder of the prepared vectors.
    given: the file that they were made of.
    fingerprint: the fingerprint of the file that they were read from.
    items: series of the raw items, one for each vector.
    vectors: float32 [items, width], mapped into memory.
    num_zero: how many are zero.
  """

  path: pathlib.Path
  given: str
  fingerprint: str
  items: pl.Series
  vectors: np.ndarray
  num_zero: int

  @property
  def width(self) -> int:
    return int(self.vectors.shape[1])


def open_or_prepare(given: str, data_dir: str) -> ItemVectors:
  """Returns the vectors of a file, prepared if they are not yet.

  Args:
    given: path of the file; see `vector_files`.
    data_dir: folder of prepared data.

  Raises:
    UsageError: bad vectors, or a folder that cannot be written.
  """
  fingerprint = vector_files.fingerprint(given)
  if fingerprint is None:
    next(vector_files.read(given), None)  # Says which file is not there.
    raise vector_files.refuse(given, 'cannot be read')
  path = folder_of(fingerprint, data_dir)
  if not path.exists():
    _prepare(given, fingerprint, path)
  return open_prepared(path)


def folder_of(fingerprint: str, data_dir: str) -> pathlib.Path:
  """Returns where vectors lie that have been prepared."""
  folder = pathlib.Path(os.path.abspath(pathlib.Path(data_dir).expanduser()))
  return folder / f'item_vectors-{fingerprint}'


def open_prepared(path: pathlib.Path) -> ItemVectors:
  """Returns prepared vectors.

  Raises:
    UsageError: they are damaged, or gone.
  """
  try:
    manifest = json.loads((path / history_store.MANIFEST).read_text())
    items = pl.read_parquet(path / _ITEMS, glob=False)['raw']
    vectors = np.load(path / _VECTORS, mmap_mode='r', allow_pickle=False)
    told = manifest['rows'], manifest['width']
    size = (path / _VECTORS).stat().st_size
    if not (len(items), *vectors.shape[1:]) == told == vectors.shape:
      raise ValueError('files do not fit')
    if size != manifest['bytes']:
      raise ValueError(f'{_VECTORS} has {size} bytes')
    own: dict[str, Any] = {
      name: manifest[name] for name in ('given', 'fingerprint', 'num_zero')
    }
  except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    raise errors.UsageError(
      f'item vectors {path}: cannot be read ({why}); remove the folder, and run'
      ' the command with data.item_vectors=FILE again.'
    ) from None
  return ItemVectors(path, items=items, vectors=vectors, **own)


def _prepare(given: str, fingerprint: str, path: pathlib.Path) -> None:
  """Writes the folder of a file's vectors, whole or not at all."""
  work = path.with_name(f'{path.name}.{os.getpid()}.preparing')
  print(f'preparing {given} in {path}', file=sys.stderr, flush=True)
  try:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    items, told = _write(given, work)
    _check_distinct(given, items)
    items.alias('raw').to_frame().write_parquet(work / _ITEMS)
    told |= {
      'given': os.path.abspath(pathlib.Path(given).expanduser()),
      'fingerprint': fingerprint,
    }
    text = json.dumps(told, indent=1)
    (work / history_store.MANIFEST).write_text(text)
    if not path.exists():  # Another process may have been as quick.
      work.rename(path)
  except OSError as error:
    if path.exists():
      return
    raise errors.UsageError(
      f'data.data_dir={path.parent}: cannot be written ({error}); choose'
      ' another folder with --config.data.data_dir=DIR.'
    ) from None
  finally:
    shutil.rmtree(work, ignore_errors=True)


def _write(given: str, work: pathlib.Path) -> tuple[pl.Series, dict[str, Any]]:
  """Writes the vectors, a block at a time; returns the items, and counts."""
  parts, rows, width, num_zero = [], 0, 0, 0
  raw = work / 'raw'
  with raw.open('wb') as file:
    for items, vectors in vector_files.read(given):
      width, rows = vectors.shape[1], rows + len(items)
      # Of squares in float64: those of float32 may be too large for it.
      length = np.linalg.norm(vectors.astype(np.float64), axis=1)
      is_zero = length < _LEAST_LENGTH
      num_zero += int(is_zero.sum())
      unit = vectors / np.where(is_zero, 1.0, length)[:, None]
      unit[is_zero] = 0.0
      file.write(unit.astype(np.float32).tobytes())
      parts.append(items)
  if not rows:
    raise vector_files.refuse(given, 'holds no vector')
  with (work / _VECTORS).open('wb') as file:
    header = {'descr': '<f4', 'fortran_order': False, 'shape': (rows, width)}
    np.lib.format.write_array_header_1_0(file, header)
    with raw.open('rb') as source:
      shutil.copyfileobj(source, file, 1 << 22)
    size = file.tell()
  raw.unlink()
  told = {'rows': rows, 'width': width, 'num_zero': num_zero, 'bytes': size}
  return pl.concat(parts), told


def _check_distinct(given: str, items: pl.Series) -> None:
  repeated = items.filter(items.is_duplicated()).unique(maintain_order=True)
  if len(repeated):
    shown = ', '.join(repr(item) for item in repeated.head(3))
    have = f'{len(repeated):,} items have several vectors, such as {shown}'
    if len(repeated) == 1:
      have = f'item {shown} has several vectors'
    raise vector_files.refuse(given, f'{have}; expected one of each item')
