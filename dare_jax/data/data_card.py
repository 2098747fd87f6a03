"""What a prepared log holds, for people to read."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib

import numpy as np

from dare_jax import errors
from dare_jax.data import options
from dare_jax.data import sessions
from dare_jax.data import split_advice
from dare_jax.data import split_times
from dare_jax.data import splits
from dare_jax.data.ids import known_ids
from dare_jax.data.ids import unknown_report
from dare_jax.logs import derived_fields
from dare_jax.logs import id_map
from dare_jax.logs import iso_dates
from dare_jax.logs import time_units
from dare_jax.store import history_store
from dare_jax.store import set_members
from dare_jax.store import vector_store

_QUANTILES = (0, 10, 50, 90, 99, 100)


def data_card(
  store: history_store.HistoryStore, data: options.PipelineOptions
) -> str:
  """Returns the data card of a store: one `name: value` a line.

  Args:
    store: the history store, open.
    data: how moments and their targets are made. Where they cannot be, the
      card says why.
  """
  lines = [
    *_source_lines(store),
    *_size_lines(store),
    *_distinct_times(store, data.split),
    *_set_lines(store),
    *_vector_lines(store),
    *_split_lines(store, data),
    *_store_lines(store),
  ]
  width = max(len(name) for name, _ in lines)
  return '\n'.join(f'{name:<{width}}  {value}' for name, value in lines)


def _source_lines(
  store: history_store.HistoryStore,
) -> Iterator[tuple[str, str]]:
  provenance = store.manifest['provenance']
  log = provenance['log']
  yield 'dataset:', str(provenance['dataset'])
  yield 'input:', str(provenance['input'] or '(none needed)')
  files = (provenance.get('origin') or {}).get('files')
  if files:
    size = sum(size for _, size in files)
    names = files[0][0]
    if len(files) > 1:
      names = f'{names} to {files[-1][0]}'
    yield 'files:', f'{len(files):,} of {size:,} bytes: {names}'
  yield 'rows read:', f'{log["rows_read"]:,}'
  yield 'rows kept:', f'{log["rows_kept"]:,}'
  for reason, count in log['dropped'].items():
    share = count / max(1, log['rows_read'])
    yield 'rows dropped:', f'{count:,} ({share:.3%}), {reason}'
  for example in log['examples']:
    yield 'malformed:', example
  for note in log['notes']:
    yield 'note:', note


def _size_lines(store: history_store.HistoryStore) -> Iterator[tuple[str, str]]:
  table = store.behaviors
  yield 'users:', f'{store.num_users:,}'
  for field, size in store.vocab_sizes.items():
    if field != 'user' and not derived_fields.is_derived(field):
      plural = {'item': 'items', 'category': 'categories'}.get(field, field)
      yield f'{plural}:', f'{size - id_map.FIRST:,}'
  yield 'behaviors:', f'{len(table):,}'
  if store.impressions is not None:
    label = store.impressions.columns['label']
    positive = f'{int(np.sum(label, dtype=np.int64)):,}'
    yield 'impressions:', f'{len(label):,}, {positive} with label 1'
  repeated = _num_repeated(store.impressions or table)
  if repeated:
    share = repeated / len(store.impressions or table)
    yield (
      'repeated rows:',
      f'{repeated:,} ({share:.3%}) with the user, item and time of another;'
      ' they are kept',
    )
  lengths = np.diff(table.offsets)
  if len(lengths):
    values = np.quantile(lengths, np.array(_QUANTILES) / 100, method='lower')
    names = ('min', *(f'{q} %' for q in _QUANTILES[1:-1]), 'max')
    pairs = zip(names, values, strict=True)
    text = ', '.join(f'{name} {int(value):,}' for name, value in pairs)
    yield 'behaviors a user:', text
  stamps = table.columns['timestamp']
  if len(stamps):
    yield 'time range:', _time_range(store, stamps)
    yield 'time unit:', _time_unit(store)


def _set_lines(store: history_store.HistoryStore) -> Iterator[tuple[str, str]]:
  for field, sets in set_members.of_store(store).items():
    sizes = np.diff(sets.first)[id_map.FIRST :]
    yield (
      f'members of {field}:',
      f'{len(sets.raw):,}, in sets of {sizes.mean() if len(sizes) else 0:.1f},'
      f' of {sets.widest:,} at most',
    )


def _vector_lines(
  store: history_store.HistoryStore,
) -> Iterator[tuple[str, str]]:
  if isinstance(store, vector_store.VectorStore):
    yield 'item vectors:', vector_store.coverage(store)


def _num_repeated(table: history_store.Table) -> int:
  """Returns how many rows are there again in their user's session."""
  _, start, session = sessions.of_table(table)
  is_shared = np.diff(start, append=len(table)) > 1
  item = table.columns['item_id']
  row = np.flatnonzero(is_shared[session] & (item != id_map.UNKNOWN))
  pairs = session[row] * (int(item.max(initial=0)) + 1) + item[row]
  return len(row) - len(np.unique(pairs))


def _time_range(store: history_store.HistoryStore, stamps: np.ndarray) -> str:
  first, last = int(stamps.min()), int(stamps.max())
  text = f'{first} to {last}'
  unit, _ = split_times.unit_of(store)
  if unit is None:
    return text
  dates = [iso_dates.shown(time, unit) for time in (first, last)]
  return f'{dates[0]} to {dates[1]} UTC ({text})' if all(dates) else text


def _time_unit(store: history_store.HistoryStore) -> str:
  """Says what a time stamp counts, and how that is known."""
  unit, is_told = split_times.unit_of(store)
  scale = split_times.scale_of(store)
  if is_told:
    return (
      f'{unit} since 1970, UTC; dates and times without a zone are taken for'
      ' those of UTC'
    )
  text = "not known: the log's numbers"
  if unit is not None:
    text = f'{unit} since 1970, UTC, judging by their size'
  if scale > 1:
    text += f"; the log's numbers times {scale:,}, to be whole"
  return text


def _distinct_times(
  store: history_store.HistoryStore, split: str
) -> Iterator[tuple[str, str]]:
  """Says how many times users have, and what follows where they are few."""
  table = store.impressions or store.behaviors
  if not len(table):
    return
  distinct, lengths = sessions.times_a_user(table), np.diff(table.offsets)
  events = 'behaviors' if store.impressions is None else 'impressions'
  yield (
    'times a user:',
    f'median {int(np.median(distinct)):,} distinct,'
    f' of {int(np.median(lengths)):,} {events}',
  )
  are_days = _are_days(store, table.columns['timestamp'])
  if are_days or split_advice.has_few_times(distinct, lengths):
    what = 'times are whole days' if are_days else 'users have few times'
    before = 'right before the target, in the order of the log'
    if split == 'leave_last':
      yield 'note:', f'{what}: the history of a target ends {before}'
      return
    text = (
      f'{what}: all that a user does at one time is one session, and the'
      ' history of a target ends before its session'
    )
    if store.impressions is None:
      text += f'; with --config.data.split=leave_last it ends {before}'
    yield 'note:', text


def _are_days(store: history_store.HistoryStore, times: np.ndarray) -> bool:
  """Returns whether all times are at one time of the day, on several days."""
  unit, _ = split_times.unit_of(store)
  if unit is None or times[0] == times.max():
    return False
  day = 86_400 * time_units.PER_SECOND[unit]
  return not any(
    ((part.astype(np.int64) - int(times[0])) % day).any()
    for part in np.array_split(times, 1 + len(times) // 1_000_000)
  )


def _split_lines(
  store: history_store.HistoryStore, data: options.PipelineOptions
) -> Iterator[tuple[str, str]]:
  yield 'split:', str(data.split)
  try:
    made = splits.make_splits(store, data)
  except errors.UsageError as error:
    yield 'moments:', f'none: {error}'
    return
  for name, moments in made.items():
    users = len(np.unique(moments.user))
    yield f'{name} moments:', f'{len(moments):,} of {users:,} users'
  sets = set_members.of_store(store)
  rows = known_ids.rows_of_training(store, made['train'], data, sets)
  known, _ = known_ids.as_read(rows, sets, data)
  known = {field: known[field] for field in derived_fields.given(known)}
  try:
    yield from unknown_report.lines(store, made, data, known)
  except errors.UsageError as error:
    yield 'negatives:', f'none: {error}'


def _store_lines(
  store: history_store.HistoryStore,
) -> Iterator[tuple[str, str]]:
  size = _folder_bytes(store.path)
  events = len(store.impressions or store.behaviors)
  yield 'store:', str(store.path)
  each = f', {size / events:.1f} bytes an event' if events else ''
  yield 'store size:', f'{size / 1e6:,.1f} MB{each}'
  yield 'fingerprint:', store.fingerprint


def _folder_bytes(folder: pathlib.Path) -> int:
  return sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())
