"""Which columns of an input hold what."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from dare_jax import errors
from dare_jax.logs import compression
from dare_jax.prediction import blocks
from dare_jax.prediction.sources import csv_source
from dare_jax.prediction.sources import parquet_source

LOGIT, PROBABILITY, RANK = 'logit', 'probability', 'rank'
_NO_NAME = '\0'  # Nothing tells the separator, but how many names it gives.
_ROLES = ('user', 'item', 'category', 'time')
# As the base config names the columns of a log.
_DEFAULTS = {
  'user': 'user_id',
  'item': 'item_id',
  'category': 'category_id',
  'time': 'timestamp',
}


@dataclasses.dataclass(frozen=True)
class Names:
  """What the columns of an input may be called, by role.

  Roles are user, item, category, time, and the names of further fields and of
  context fields.

  Attributes:
    by_role: names in order of preference; none: there is no such column.
    given: roles whose name the user gave, which must be there.
    missing: texts that stand for a missing value.
  """

  by_role: Mapping[str, Sequence[str]]
  given: frozenset[str] = frozenset()
  missing: Sequence[str] = ()


def names_of(
  log_columns: Any, fields: Sequence[str], given: str | None
) -> Names:
  """Returns the names that columns may have.

  A column of a role has the name that the log's has, or the role's own.

  Args:
    log_columns: the config's section on the columns of the log, or None.
    fields: further fields and context fields.
    given: 'role=name,role=name'; `role=` for no such column.

  Raises:
    UsageError: `given` is not written like that.
  """
  by_role: dict[str, Sequence[str]] = {}
  for role in _ROLES:
    of_log = log_columns[role] if log_columns else _DEFAULTS[role]
    by_role[role] = tuple(dict.fromkeys((of_log or role, role)))
  by_role |= {field: (field,) for field in fields}
  own: dict[str, Sequence[str]] = {}
  for pair in filter(None, (given or '').split(',')):
    role, is_pair, name = pair.partition('=')
    if not is_pair or role not in by_role:
      raise errors.UsageError(
        f'--columns={given}: {pair!r}: expected ROLE=NAME, with a role of'
        f' {", ".join(by_role)}.'
      )
    own[role] = (name,) if name else ()
  missing = tuple(map(str, log_columns.missing)) if log_columns else ()
  return Names({**by_role, **own}, frozenset(own), missing)


def open_source(flag: str, given: str, names: Names) -> blocks.Source:
  """Opens an input, CSV or Parquet by its content.

  Args:
    flag: the flag that named the file, for messages.
    given: the path that the flag has.
    names: the names of its columns, by which the separator is found.

  Raises:
    UsageError: it cannot be read.
  """
  path = blocks.one_file(flag, given)
  if compression.is_parquet(path):
    return parquet_source.ParquetSource(path)
  first = compression.head(path).partition(b'\n')[0].decode(errors='replace')
  likely = [
    name
    for role in ('user', 'item')
    for name in names.by_role[role][:1]
    if name in first
  ]
  return csv_source.CsvSource(path, likely or [_NO_NAME])


@dataclasses.dataclass(frozen=True)
class Found:
  """The columns of a file by role; those that it lacks are not in it."""

  path: pathlib.Path
  by_role: Mapping[str, str]

  def get(self, role: str) -> str | None:
    return self.by_role.get(role)


def find(
  source: blocks.Source,
  names: Names,
  needed: Sequence[str],
  wanted: Sequence[str],
) -> Found:
  """Returns which column has which role.

  Args:
    source: the file whose columns are looked for.
    names: what they may be called.
    needed: roles that must be there.
    wanted: roles that may be.

  Raises:
    UsageError: a column that is needed is not there.
  """
  found: dict[str, str] = {}
  for role in (*needed, *wanted):
    options = names.by_role[role]
    there = [name for name in options if name in source.names]
    if there:
      found[role] = there[0]
    elif role in needed or (options and role in names.given):
      asked = ' or '.join(map(repr, options)) or 'for it'
      raise errors.UsageError(
        f'{source.path}: no column {asked} ({role}); it has'
        f' {", ".join(source.names)}. Say which it is with'
        f' --columns={role}=NAME{_of_context(role)}.'
      )
  return Found(source.path, found)


def _of_context(role: str) -> str:
  if role in _ROLES:
    return ''
  return (
    ', or add it: the model reads this field of the moment; an empty value is'
    ' an unknown one'
  )


def require_free(path: pathlib.Path, taken: Sequence[str], new: str) -> None:
  """Raises UsageError if a column to be added is there already."""
  if new in taken:
    raise errors.UsageError(
      f'{path}: has a column {new!r}, which is to be added; rename it.'
    )
