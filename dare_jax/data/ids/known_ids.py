"""Which ids training reads, so that their rows are moved by some step."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from dare_jax.data import options
from dare_jax.data import splits
from dare_jax.logs import derived_fields
from dare_jax.logs import id_map
from dare_jax.store import history_store
from dare_jax.store import set_members

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


def rows_of_training(
  store: history_store.HistoryStore,
  moments: splits.Moments,
  data: options.PipelineOptions,
  sets: Mapping[str, set_members.SetMembers],
) -> dict[str, np.ndarray]:
  """Returns which table rows training reads: field -> bool [rows].

  The rows of a field are its ids; of a field of sets, the members of its sets,
  of which one is known if training reads a set that has it.

  Args:
    store: the history store.
    moments: the moments of the training split.
    data: how rows are made.
    sets: field -> the members of its sets.
  """
  return rows(of_training(store, moments, data), sets)


def rows(
  known: Mapping[str, np.ndarray],
  sets: Mapping[str, set_members.SetMembers],
) -> dict[str, np.ndarray]:
  """Returns which rows of tables are known, given which ids are.

  Args:
    known: field -> bool [ids].
    sets: field -> members, of fields whose values are sets: rows are theirs.
  """
  return dict(known) | {f: own.in_sets(known[f]) for f, own in sets.items()}


def as_read(
  known_rows: Mapping[str, np.ndarray],
  sets: Mapping[str, set_members.SetMembers],
  data: options.PipelineOptions,
  before: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, set_members.SetMembers]]:
  """Returns which ids are known, and of which members sets are made then.

  Args:
    known_rows: as `rows_of_training` returns.
    sets: field -> all members, of fields whose values are sets.
    data: whether there is an unknown id. If there is none, all are read.
    before: rows that earlier runs knew, if there are any.
  """
  known, found = dict(known_rows), {}
  if before is not None:
    known = {field: flags | before[field] for field, flags in known.items()}
  for field, own in sets.items():
    read = own.of_known(known[field])
    known[field] = read.are_known()
    found[field] = read if data.unknown_rate > 0 else own
  return known, found


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
