"""A history store beside content vectors: one more field, derived from items.

The id of the field `item_vector` is the row of the item's own vector, also
where its item id is read as the unknown one. Row 0 is padding, row 1 that of
all items without a vector, row i + 2 the i-th vector; the first two are zeros.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from dare_jax.logs import derived_fields
from dare_jax.logs import id_map
from dare_jax.logs import raw_log
from dare_jax.store import history_store
from dare_jax.store import item_vectors
from dare_jax.store import vector_files

FIELD = derived_fields.ITEM_VECTOR
_BLOCK = 1 << 22


class MappedColumn:
  """`table[column]`, made of those rows only that are asked for."""

  def __init__(self, column: np.ndarray, table: np.ndarray) -> None:
    self._column, self._table = column, table

  def __len__(self) -> int:
    return len(self._column)

  def __getitem__(self, index: Any) -> Any:
    return self._table[self._column[index]]

  def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
    del copy  # It is always new.
    return np.asarray(self[:], dtype)


@dataclasses.dataclass(frozen=True)
class VectorStore(history_store.HistoryStore):
  """A store whose behaviors have the field `item_vector` as well.

  Attributes:
    vectors: the prepared vectors of the items.
    vector_items: series of the raw items of the vectors, with the type of the
      log's items.
  """

  vectors: item_vectors.ItemVectors
  vector_items: pl.Series

  def raw_ids(self, field: str) -> pl.Series:
    """Returns the raw values of a field; row i has the dense id i + 2."""
    return self.vector_items if field == FIELD else super().raw_ids(field)


def attach(
  store: history_store.HistoryStore, vectors: item_vectors.ItemVectors
) -> VectorStore:
  """Returns a store with the vectors of its items.

  Raises:
    UsageError: a log with a field of that name, items of another kind, or no
      item of the log with a vector.
  """
  given = vectors.given
  if FIELD in (*store.fields, *store.context_fields):
    raise vector_files.refuse(
      given, f'the log has a field {FIELD!r} of its own; rename that'
    )
  raw = store.raw_ids('item')
  items = _as_in_log(given, vectors.items, raw)
  row_of = np.full(len(raw) + id_map.FIRST, id_map.UNKNOWN, np.int32)
  row_of[id_map.PADDING] = id_map.PADDING
  found = id_map.lookup(items, raw).fill_null(id_map.UNKNOWN)
  row_of[id_map.FIRST :] = found.to_numpy()
  if len(raw) and (row_of[id_map.FIRST :] == id_map.UNKNOWN).all():
    raise vector_files.refuse(
      given,
      f'has no item of the log: it has items such as {items[0]!r}, the log such'
      f' as {raw[0]!r}',
    )
  extra = {
    'fields': [*store.fields, FIELD],
    'vocab_sizes': {**store.vocab_sizes, FIELD: len(items) + id_map.FIRST},
  }
  impressions = store.impressions
  return VectorStore(
    store.path,
    {**store.manifest, **extra},
    _with_rows(store.behaviors, row_of),
    None if impressions is None else _with_rows(impressions, row_of),
    {**store.item_values, FIELD: row_of},
    vectors,
    items,
  )


def width_of(store: history_store.HistoryStore) -> int | None:
  """Returns the width of the vectors of a store's items; None: it has none."""
  return store.vectors.width if isinstance(store, VectorStore) else None


def coverage(store: VectorStore) -> str:
  """Returns in words how much of a log has vectors."""
  vectors = store.vectors
  has_vector = store.item_values[FIELD] >= id_map.FIRST
  column = store.behaviors.columns['item_id']
  rows = sum(
    int(has_vector[column[start : start + _BLOCK]].sum())
    for start in range(0, len(column), _BLOCK)
  )
  size = len(has_vector) - id_map.FIRST
  of_log = int(has_vector.sum())
  parts = [
    f'{of_log:,} of {size:,} items of the log ({of_log / max(size, 1):.1%}),'
    f' with {rows / max(len(column), 1):.1%} of its behaviors'
  ]
  if others := len(store.vector_items) - of_log:
    parts.append(f'{raw_log.counted(others, "item", "items")} that it lacks')
  if vectors.num_zero:
    zero = raw_log.counted(vectors.num_zero, 'vector is', 'vectors are')
    parts.append(f'{zero} zero, which is none')
  return f'{vectors.width} wide, from {vectors.given}: {"; ".join(parts)}'


def _with_rows(
  table: history_store.Table, row_of: np.ndarray
) -> history_store.Table:
  column: Any = MappedColumn(table.columns['item_id'], row_of)
  return dataclasses.replace(
    table, columns={**table.columns, f'{FIELD}_id': column}
  )


def _as_in_log(given: str, items: pl.Series, raw: pl.Series) -> pl.Series:
  """Returns raw items in the type of the log's, `raw`."""
  cast = items.cast(raw.dtype, strict=False)
  if cast.null_count():
    odd = items[int(cast.is_null().arg_max() or 0)]
    raise vector_files.refuse(
      given, f'item {odd!r}: items of the log are whole numbers'
    )
  if cast.n_unique() < len(cast):
    odd = cast.filter(cast.is_duplicated())[0]
    raise vector_files.refuse(
      given, f'item {odd!r} has several vectors; expected one of each item'
    )
  return cast
