"""Files of item vectors, read a block of rows at a time.

Two forms, of the same content: each item once, with a vector of finite numbers,
all of one width.

- `NAME.npy`, numbers [items, width], beside `NAME.items.npy`, the raw items in
  the same order: whole numbers or text.
- Parquet, with a column `item` (whole numbers or text) and a column `vector`
  (a list of numbers in each row).
"""

from __future__ import annotations

from collections.abc import Iterator
import hashlib
import pathlib
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dare_jax import errors

ITEM, VECTOR = 'item', 'vector'
_BLOCK_VALUES = 1 << 22  # of vectors, at a time
_HASHED_BYTES = 1 << 22
_FORMS = (
  'expected NAME.npy with NAME.items.npy beside it, or a Parquet file with the'
  f' columns {ITEM} and {VECTOR} (docs/content_vectors.md)'
)
# A block: raw items, and float32 [rows, width].
Block = tuple[pl.Series, np.ndarray]


def refuse(given: str, what: str) -> errors.UsageError:
  """Returns the error that a file of vectors cannot be used."""
  return errors.UsageError(f'data.item_vectors={given}: {what}.')


def require(given: str) -> None:
  """Raises UsageError for a file of vectors that is not there."""
  for file in _files(_path(given)):
    if not file.is_file():
      raise refuse(given, f'no file {file}; {_FORMS}')


def fingerprint(given: str) -> str | None:
  """Returns a hash of the bytes of a file of vectors; None: it is not there."""
  found = hashlib.sha256()
  try:
    for path in _files(_path(given)):
      with path.open('rb') as file:
        while chunk := file.read(_HASHED_BYTES):
          found.update(chunk)
  except OSError:
    return None
  return found.hexdigest()[:16]


def read(given: str) -> Iterator[Block]:
  """Yields the blocks of a file, in its order; as many rows as fit in memory.

  Args:
    given: path of the file, as the config names it.

  Raises:
    UsageError: it cannot be read, or is of another form; a row without item,
      or whose vector has another width or a number that is not finite.
  """
  require(given)
  path = _path(given)
  blocks = _npy_blocks if path.suffix == '.npy' else _parquet_blocks
  first, width = 0, None
  try:
    for items, vectors in blocks(given, path):
      width = vectors.shape[1] if width is None else width
      _check(given, items, vectors, first, width)
      first += len(items)
      yield items, vectors
  except (OSError, pa.ArrowException) as error:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    raise refuse(given, f'cannot be read ({why}); {_FORMS}') from None


def _path(given: str) -> pathlib.Path:
  return pathlib.Path(given).expanduser()


def _files(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
  if path.suffix != '.npy':
    return (path,)
  return path, path.with_suffix('.items.npy')


def _npy_blocks(given: str, path: pathlib.Path) -> Iterator[Block]:
  loaded = []
  for file in _files(path):
    try:
      loaded.append(np.load(file, mmap_mode='r', allow_pickle=False))
      if not isinstance(loaded[-1], np.ndarray):  # An archive of several.
        raise ValueError
    except (ValueError, EOFError):
      raise refuse(
        given, f'{file.name} is no array of numbers or text; {_FORMS}'
      ) from None
  vectors, items = loaded
  if vectors.ndim != 2 or vectors.dtype.kind not in 'fiu':
    raise refuse(
      given,
      f'has the shape {vectors.shape} and dtype {vectors.dtype}; expected'
      ' numbers [items, width]',
    )
  if items.shape != vectors.shape[:1] or items.dtype.kind not in 'iuU':
    raise refuse(
      given,
      f'{_files(path)[1].name} has the shape {items.shape} and dtype'
      f' {items.dtype}; expected {len(vectors)} whole numbers or texts, the'
      ' item of each row',
    )
  rows = _rows_of_block(vectors.shape[1])
  for start in range(0, len(vectors), rows):
    some = np.array(items[start : start + rows])
    yield pl.Series(some), _as_float32(vectors[start : start + rows])


def _parquet_blocks(given: str, path: pathlib.Path) -> Iterator[Block]:
  with pq.ParquetFile(path) as file:
    kinds = {field.name: field.type for field in file.schema_arrow}
    for name in (ITEM, VECTOR):
      if name not in kinds:
        raise refuse(
          given, f'no column {name!r}; it has {", ".join(kinds)}; {_FORMS}'
        )
    _check_kinds(given, kinds)
    width = None
    rows = _rows_of_block(1024)
    for batch in file.iter_batches(rows, columns=[ITEM, VECTOR]):
      if not len(batch):
        continue
      items: Any = pl.from_arrow(batch.column(ITEM))
      column = batch.column(VECTOR)
      lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(False)
      if (none := np.flatnonzero(lengths == 0)).size:
        raise refuse(
          given,
          f'item {items[int(none[0])]!r} has no vector; leave out the rows of'
          ' items without one',
        )
      width = int(lengths[0]) if width is None else width
      if (odd := np.flatnonzero(lengths != width)).size:
        raise refuse(
          given,
          f'the vector of item {items[int(odd[0])]!r} has {lengths[odd[0]]}'
          f' numbers, others have {width}',
        )
      values = column.flatten().cast(pa.float32(), safe=False)
      plain = values.to_numpy(zero_copy_only=False)
      yield items, np.asarray(plain, np.float32).reshape(len(items), width)


def _check_kinds(given: str, kinds: dict[str, Any]) -> None:
  item, vector = kinds[ITEM], kinds[VECTOR]
  is_text = pa.types.is_string(item) or pa.types.is_large_string(item)
  if not (is_text or pa.types.is_integer(item)):
    raise refuse(
      given, f'{ITEM} is {item}; expected whole numbers or text, as in the log'
    )
  is_list = (
    pa.types.is_list(vector)
    or pa.types.is_large_list(vector)
    or pa.types.is_fixed_size_list(vector)
  )
  if not is_list or not (
    pa.types.is_floating(vector.value_type)
    or pa.types.is_integer(vector.value_type)
  ):
    raise refuse(
      given, f'{VECTOR} is {vector}; expected a list of numbers in each row'
    )


def _rows_of_block(width: int) -> int:
  return max(1, _BLOCK_VALUES // max(width, 1))


def _as_float32(values: np.ndarray) -> np.ndarray:
  with np.errstate(over='ignore'):  # It is then not finite, which is told.
    return np.asarray(values, np.float32)


def _check(
  given: str, items: pl.Series, vectors: np.ndarray, first: int, width: int
) -> None:
  """Checks the rows of a block; `first` is the number of its first."""
  if not vectors.shape[1] or vectors.shape[1] != width:
    own = vectors.shape[1]
    raise refuse(given, f'vectors are {own} wide; expected {width or 1}')
  if items.null_count():
    row = first + int(items.is_null().arg_max() or 0) + 1
    raise refuse(given, f'row {row} has no item')
  bad = ~np.isfinite(vectors).all(axis=1)
  if bad.any():
    row = int(bad.argmax())
    raise refuse(
      given,
      f'the vector of item {items[row]!r} (row {first + row + 1}) has a number'
      ' that is missing, not finite or beyond float32; leave out items without'
      ' a vector',
    )
