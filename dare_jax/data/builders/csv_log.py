"""Any log in CSV or Parquet; the config names its columns."""

from __future__ import annotations

from collections.abc import Iterator
import functools
import pathlib

import polars as pl

from dare_jax import errors
from dare_jax.data import event_log
from dare_jax.data import raw_csv
from dare_jax.data import raw_log
from dare_jax.data import raw_parquet
from dare_jax.data import raw_times
from dare_jax.data import value_notes
from dare_jax.data.builders import base

_EXPECTED = 'a log in CSV (also gzipped) or Parquet'
_ROLES = ('user', 'item', 'category', 'time')
# Names that the records and the store use themselves.
_RESERVED = (*_ROLES, 'timestamp', 'label', 'offsets', 'sorted_item')


class CsvLog(base.LogBuilder):
  """A log of the user's own, in CSV (first line: names) or Parquet.

  `data.columns` says which column holds the user, item, category and time of a
  behavior; `fields` and `context` name further categorical columns, `label` a
  column of 0 and 1 if rows are impressions. Ids and categories are compared as
  text; an empty further field is a value of its own. Times are numbers, or
  dates in ISO 8601 or of a Parquet file's own types.
  """

  @property
  def schema(self) -> event_log.LogSchema:
    columns = self.options.columns
    return event_log.LogSchema(
      fields=tuple(columns.fields),
      context_fields=tuple(columns.context),
      has_labels=columns.label is not None,
      sort_by_time=self.options.sort_by_time,
    )

  @functools.cached_property
  def _notation(self) -> raw_times.Notation:
    """How the log writes its times, in all its parts."""
    return raw_times.Notation()

  @property
  def _missing(self) -> tuple[str, ...]:
    return tuple(str(text) for text in self.options.columns.missing)

  def read_log(self) -> event_log.EventLog:
    file = raw_log.require_file(self.options.input, _EXPECTED)
    report = raw_log.RowReport()
    select = self._select()
    if file.suffix.lower() == '.parquet':
      blocks = raw_parquet.read(
        file,
        [self._column(name, select) for name in select],
        report,
        self.options.max_malformed_share,
        select,
      )
    else:
      blocks = self._csv_blocks(file, report, select)
    log = event_log.encode(blocks, self.schema, report)
    value_notes.add(log, self._missing)
    return log

  def _csv_blocks(
    self,
    file: pathlib.Path,
    report: raw_log.RowReport,
    select: dict[str, str],
  ) -> Iterator[pl.DataFrame]:
    order = self.options.columns.order
    names = list(order or raw_csv.header(file))
    raw_log.require_columns(file, list(select), names)
    return raw_csv.read(
      file,
      [self._column(name, select) for name in names],
      report,
      header=not order,
      max_malformed_share=self.options.max_malformed_share,
      select=select,
    )

  def _select(self) -> dict[str, str]:
    """Returns column of the file -> its name in a block.

    Raises:
      UsageError: a role without a column, a column with two roles, or a
        further field whose name is taken.
    """
    columns = self.options.columns
    pairs = [(f'columns.{role}', columns[role], role) for role in _ROLES]
    pairs += [('columns.fields', name, name) for name in columns.fields]
    pairs += [('columns.context', name, name) for name in columns.context]
    if columns.label is not None:
      pairs.append(('columns.label', columns.label, 'label'))
    select: dict[str, str] = {}
    for option, name, output in pairs:
      if not name:
        raise errors.UsageError(
          f'data.{option} is empty: expected the name of a column.'
        )
      if name in select:
        raise errors.UsageError(
          f'data.{option}={name}: this column is already used as'
          f' {select[name]!r}; a column can have one role.'
        )
      if option.endswith(('fields', 'context')):
        _check_field_name(option, name)
      select[name] = output
    return select

  def _column(self, name: str, select: dict[str, str]) -> raw_log.Column:
    output = select.get(name, '')
    if output == 'time':
      return raw_log.Column(
        name, 'time', missing=self._missing, notation=self._notation
      )
    return raw_log.Column(
      name,
      {'user': 'id', 'item': 'id', 'label': 'label'}.get(output, 'str'),
      required=output in (*_ROLES, 'label'),
      missing=self._missing,
    )


def _check_field_name(option: str, name: str) -> None:
  """Refuses names of further fields that files or records could not have."""
  if name in _RESERVED or not name.isidentifier():
    raise errors.UsageError(
      f'data.{option}: a further field cannot be named {name!r}; expected'
      ' letters, digits and _, and none of'
      f' {", ".join(_RESERVED)}. Rename the column in the log.'
    )
