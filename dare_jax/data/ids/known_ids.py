"""Which ids training reads, so that their rows are moved by some step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dare_jax.data import options
from dare_jax.data import splits
from dare_jax.logs import derived_fields
from dare_jax.logs import id_map
from dare_jax.store import history_store

_BLOCK = 1 << 22  # rows of a column that are looked at together


def of_training(
  store: history_store.HistoryStore,
  moments: splits.Moments,
  data: options.PipelineOptions,
) -> dict[str, np.ndarray]:
  """Returns field -> bool [ids], whether a training moment reads an id.

  That is in the history that the moment sees, as its positive or as one of its
  logged impressions; for context fields, at the moment itself. What is a
  sampled negative and nothing else is not known: its label is always 0, which
  says nothing about it. Padding and the unknown id are known, and all ids of
  fields whose vectors are given.

  Args:
    store: the history store.
    moments: the moments of the training split.
    data: how rows are made.
  """
  table, events = store.behaviors, store.impressions
  visible = _rows_between(
    np.maximum(moments.end - data.history_length, table.offsets[moments.user]),
    moments.end,
    len(table),
  )
  target = _rows_between(
    moments.target, moments.target + moments.count, len(events or table)
  )
  if events is None:
    events = table
  known = {}
  for field in (*store.fields, *store.context_fields):
    flags = np.zeros(store.vocab_sizes[field], bool)
    flags[: id_map.FIRST] = True
    if derived_fields.is_derived(field):  # It is given, not learned.
      known[field] = np.ones_like(flags)
      continue
    reads = [(events, target)]
    if field in store.fields:
      reads.append((table, visible))
    for source, rows in reads:
      for ids in _blocks(source.columns[f'{field}_id'], rows):
        flags[ids] = True
    known[field] = flags
  return known


def _rows_between(start: np.ndarray, stop: np.ndarray, size: int) -> np.ndarray:
  """Returns bool [size], whether a row is in start .. stop - 1 of any pair."""
  change = np.zeros(size + 1, np.int32)
  np.add.at(change, start, 1)
  np.add.at(change, stop, -1)
  return np.cumsum(change[:-1], out=change[:-1]) > 0


def _blocks(column: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the values at some rows of a column, block by block."""
  for first in range(0, len(column), _BLOCK):
    block = slice(first, first + _BLOCK)
    yield column[block][rows[block]]
