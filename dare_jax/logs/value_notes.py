"""Remarks on the values of a log that may not be what they look like."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import shlex

import numpy as np
import polars as pl

from dare_jax.logs import event_log
from dare_jax.logs import id_map
from dare_jax.logs import raw_log

_FIELDS = ('user', 'item', 'category')
_JOINED_SHARE = 0.1  # of a column's values, from where it is told
_PLURALS = {'user': 'users', 'item': 'items', 'category': 'categories'}
_NOT_WHOLE = r'\D'
# As Hive, Pandas, databases and spreadsheets write that there is no value.
_LIKE_MISSING = (
  'nan',
  'null',
  'none',
  '\\n',
  'na',
  'n/a',
  '#n/a',
  '<na>',
  'nat',
  'nil',
  '(null)',
  'undefined',
)


def add(log: event_log.EventLog, missing: Sequence[str] = ()) -> None:
  """Adds remarks on users, items and categories to the report of a log.

  Args:
    log: the log whose values are compared as text.
    missing: texts that already stand for a missing value.
  """
  texts: dict[str, None] = dict.fromkeys(missing)
  found = []
  for field in _FIELDS:
    raw = log.raw_ids[field]
    if raw.dtype != pl.String:
      continue
    odd = raw.str.contains(_NOT_WHOLE).arg_true()  # Mostly few, or all.
    is_like = raw[odd].str.to_lowercase().is_in(_LIKE_MISSING)
    for row in odd.filter(is_like):
      count = _num_rows(log, field, row + id_map.FIRST)
      rows = raw_log.counted(count, 'row has', 'rows have')
      found.append(f"{rows} the {field} '{raw[row]}'")
      texts[raw[row]] = None
    log.report.notes.extend(_odd_texts(field, raw, raw[odd]))
  if found:
    log.report.notes.append(
      f'{", ".join(found)}; if that stands for a missing value, leave them out'
      f' with --config.data.columns.missing={_as_flag([*texts])}'
    )


def add_joined(
  log: event_log.EventLog, select: Mapping[str, str], sets: Collection[str] = ()
) -> None:
  """Adds a remark for each column whose values look like several joined.

  As in `Action|Drama`: many values hold the mark, and they are made of fewer
  parts than they are themselves.

  Args:
    log: the log whose fields are compared as text.
    select: column -> field.
    sets: fields of which that is known.
  """
  for column, field in select.items():
    if field in log.raw_ids and field not in ('user', 'item', *sets):
      log.report.notes.extend(_joined(column, log.raw_ids[field]))


def _joined(column: str, raw: pl.Series) -> Iterator[str]:
  for mark in '|;,':
    joined = raw.filter(raw.str.contains(mark, literal=True))
    if len(joined) < max(2, _JOINED_SHARE * len(raw)):
      continue
    parts = joined.str.split(mark).explode().str.strip_chars().n_unique()
    if parts < len(joined):
      yield (
        f'{column}: {len(joined):,} of {len(raw):,} values look like several'
        f' joined by {mark!r}, such as {joined[0]!r:.60}, made of {parts:,};'
        ' each combination is a value of its own. To have one value for each'
        ' behavior, keep the first, say, in a column of its own; to have all as'
        ' a set, name a further field in data.columns.sets'
      )
      return


def _num_rows(log: event_log.EventLog, field: str, value: int) -> int:
  if field == 'user':
    return int(np.diff(log.offsets)[value - id_map.FIRST])
  return int((log.columns[f'{field}_id'] == value).sum())


def _odd_texts(field: str, raw: pl.Series, odd: pl.Series) -> Iterator[str]:
  spaced = odd.filter(odd.str.strip_chars() != odd)
  if len(spaced):
    yield (
      f'{len(spaced):,} {_PLURALS[field]} begin or end in a space, such as'
      f' {spaced[0]!r:.40}; without it they would be others'
    )
  floats = odd.filter(odd.str.contains(r'^\d+\.0+$'))
  if not len(floats):
    return
  whole = floats.str.replace(r'\.0+$', '')
  both = floats.filter(whole.is_in(raw.implode()))
  if len(both):
    yield (
      f'{len(both):,} {_PLURALS[field]} are there twice, such as {both[0]!r}'
      f' and {both[0].split(".")[0]!r}; give them in one way'
    )


def _as_flag(texts: Sequence[str]) -> str:
  """Returns texts as a flag's value, quoted for a shell."""
  end = ',' if len(texts) == 1 and texts[0] == 'None' else ''
  return shlex.quote(','.join(texts) + end)
