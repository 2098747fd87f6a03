"""Any log in CSV or Parquet; the config names its columns."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator

import polars as pl

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.logs import log_files
from dare_jax.logs import log_parts
from dare_jax.logs import raw_log
from dare_jax.logs import raw_times
from dare_jax.logs import value_notes
from dare_jax.logs.builders import base
from dare_jax.logs.csv import csv_dialect
from dare_jax.logs.values import number_ranges
from dare_jax.logs.values import set_values

_EXPECTED = 'a log in CSV or Parquet: a file, a folder or a pattern'
_IF_EMPTY = (
  ' If rows without a value are as they should be (users who have not logged'
  ' in, say), --config.data.columns.missing= leaves them out: the empty text'
  ' then counts as missing, as null and NaN do.'
)
_ROLES = ('user', 'item', 'category', 'time')
# Names that the records and the store use themselves.
_RESERVED = (
  *_ROLES,
  *('timestamp', 'label', 'offsets', 'sorted_item', 'item_vector'),
)


class CsvLog(base.LogBuilder):
  """A log of the user's own, in CSV (first line: names) or Parquet.

  `data.columns` says which column holds the user, item, category and time of a
  behavior; `fields` and `context` name further categorical columns, `label` a
  column of 0 and 1 if rows are impressions. Ids and categories are compared as
  text; an empty further field is a value of its own. `numbers` names those of
  the further columns that are put into ranges, `sets` those that hold several
  values. Times are numbers, or dates in ISO 8601 or of a Parquet file's own
  types.
  """

  @property
  def schema(self) -> event_log.LogSchema:
    """The fields that `data.columns` names."""
    columns = self.options.columns
    return event_log.LogSchema(
      fields=tuple(columns.fields),
      context_fields=(*columns.context, *columns.user_fields),
      has_labels=columns.label is not None,
      sort_by_time=self.options.sort_by_time,
      numbers=tuple(columns.numbers),
      user_fields=tuple(columns.user_fields),
      sets=dict.fromkeys(columns.sets, columns.set_separator),
    )

  @property
  def _missing(self) -> tuple[str, ...]:
    return tuple(str(text) for text in self.options.columns.missing)

  def read_log(self) -> event_log.EventLog:
    """Reads the files that `data.input` names."""
    given = self.options.input
    parts = log_files.find(given, _EXPECTED)
    assert given is not None  # `find` has refused that.
    columns = self.options.columns
    select = self._select()
    report = raw_log.RowReport()
    blocks = log_parts.read(
      parts,
      [self._column(name, output) for name, output in select.items()],
      report,
      select,
      columns.order,
      columns.separator and csv_dialect.separator(columns.separator),
    )
    checked = raw_log.checked(
      blocks,
      given,
      report,
      self.options.max_malformed_share,
      _IF_EMPTY,
    )
    log = event_log.encode(self._named(checked), self.schema, report)
    value_notes.add(log, self._missing)
    value_notes.add_joined(log, select, self.schema.sets)
    return log

  def _named(self, blocks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yields blocks with the ranges of numbers, and the names of sets."""
    schema, user = self.schema, self.options.columns.user
    for block in blocks:
      if user in schema.user_fields:
        block = block.with_columns(pl.col('user').cast(pl.String).alias(user))
      yield block.with_columns(
        *[number_ranges.of_series(block[name]) for name in schema.numbers],
        *[
          set_values.of_series(block[name], separator)
          for name, separator in schema.sets.items()
        ],
      )

  def _select(self) -> dict[str, str]:
    """Returns column of the file -> its name in a block.

    Raises:
      UsageError: a role without a column, a column with two roles, or a
        further field whose name is taken.
    """
    columns = self.options.columns
    pairs = [
      (f'columns.{role}', getattr(columns, role), role) for role in _ROLES
    ]
    pairs += [('columns.fields', name, name) for name in columns.fields]
    pairs += [('columns.context', name, name) for name in columns.context]
    pairs += [
      ('columns.user_fields', name, name)
      for name in columns.user_fields
      if name != columns.user
    ]
    if columns.user in columns.user_fields:
      _check_field_name('columns.user_fields', columns.user)
    for name in columns.numbers:
      if name not in (*columns.fields, *self.schema.context_fields):
        raise errors.UsageError(
          f'data.columns.numbers: {name!r} is no further field; name it in'
          ' data.columns.fields, data.columns.context or'
          ' data.columns.user_fields as well.'
        )
    self._check_sets()
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

  def _check_sets(self) -> None:
    """Raises UsageError for sets that are no further fields of their own."""
    columns = self.options.columns
    if columns.sets and not columns.set_separator:
      raise errors.UsageError(
        'data.columns.set_separator is empty: expected what stands between two'
        " members of a set, such as '|'."
      )
    for name in columns.sets:
      if name not in columns.fields:
        raise errors.UsageError(
          f'data.columns.sets: {name!r} is no further field of a behavior; name'
          ' it in data.columns.fields as well.'
        )
      if name in columns.numbers:
        raise errors.UsageError(
          f'data.columns.sets: {name!r} is in data.columns.numbers as well;'
          ' a field holds sets or numbers, leave out one of the two.'
        )

  def _column(self, name: str, output: str) -> raw_log.Column:
    if output == 'time':
      return raw_log.Column(
        name, 'time', missing=self._missing, notation=raw_times.Notation()
      )
    is_set = output in self.options.columns.sets
    kinds = {'user': 'id', 'item': 'id', 'label': 'label'}
    return raw_log.Column(
      name,
      'set' if is_set else kinds.get(output, 'str'),
      required=output in (*_ROLES, 'label'),
      missing=self._missing,
      separator=self.options.columns.set_separator,
    )


def _check_field_name(option: str, name: str) -> None:
  """Refuses names of further fields that files or records could not have."""
  if name in _RESERVED or not name.isidentifier():
    raise errors.UsageError(
      f'data.{option}: a further field cannot be named {name!r}; expected'
      ' letters, digits and _, and none of'
      f' {", ".join(_RESERVED)}. Rename the column in the log.'
    )
