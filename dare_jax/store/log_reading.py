"""Whether a store holds its log as this version would read it."""

from __future__ import annotations

import polars as pl

from dare_jax import errors
from dare_jax.logs import compression
from dare_jax.logs import log_files
from dare_jax.logs import options
from dare_jax.logs import raw_parquet
from dare_jax.store import history_store
from dare_jax.store import log_origin

# Of how logs are read; in a store's manifest since 2. It counts up where some
# log is read otherwise than before, and `_difference` says which.
VERSION = 2
_UTC = ('UTC', 'Etc/UTC', 'Z', '+00:00', 'GMT')


def check(data: options.LogOptions, store: history_store.HistoryStore) -> None:
  """Refuses a store of an older version that has read its log wrongly.

  A run that was trained on it may go on: this is for those that begin.

  Args:
    data: the log that is asked for.
    store: the store of the log that `data.input` names, or the store that it
      names itself.

  Raises:
    UsageError: the log is still there, and is read otherwise today.
  """
  provenance = store.manifest['provenance']
  is_old = provenance.get('reading', 1) < VERSION
  if not is_old or provenance['dataset'] != 'csv_log':
    return
  given = log_origin.still_there(store)
  if given is None:
    return
  knows_fractions = 'time_unit' in provenance['log']
  difference = _difference(data.columns, given, knows_fractions)
  if difference is not None:
    raise errors.UsageError(
      f'history store {store.path} was prepared by an older version, which'
      f' {difference}; prepare it anew with python -m dare_jax.prepare. To keep'
      ' runs that were trained on it, leave it, and give the new one another'
      ' --config.data.data_dir=DIR.'
    )


def _difference(
  columns: options.Columns, given: str, knows_fractions: bool
) -> str | None:
  """Returns what version 1 misread in a log; None if nothing.

  Args:
    columns: the options `data.columns`.
    given: the path of the log.
    knows_fractions: whether that version kept times with parts of seconds.
  """
  fields = (columns.item, columns.category, *columns.fields, *columns.context)
  for part in log_files.listed(given):
    if not compression.is_parquet(part.path):
      continue
    own = raw_parquet.schema(part.path)
    for name in (columns.time, columns.user, *fields):
      if name not in own:
        continue  # A folder gives it.
      zone = raw_parquet.zone(part.path, name)
      if zone is not None and zone not in _UTC:
        return f'took the times of {name!r} as a clock of {zone} shows them'
      was_cut = own[name] == pl.Time
      if name == columns.time:
        was_cut = not knows_fractions
      if was_cut and raw_parquet.has_fractions(part.path, name):
        return f'cut the times of {name!r} to whole seconds'
  return None
