"""Reads raw logs in Parquet, as `raw_log` reads those in CSV."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib

import polars as pl

from dare_jax import errors
from dare_jax.logs import raw_log
from dare_jax.logs import raw_values

_BLOCK_ROWS = 4_000_000
# Floats hold each whole number below.
_EXACT_BELOW: dict[pl.DataType, int] = {
  pl.Float32(): 2**24,
  pl.Float64(): 2**53,
}
_ROUNDED = '_rounded_'
_MAX_DIGITS = 38  # of decimals that Polars reads
# Polars ends the process where it knows no such zone, as of +05:30. A zone says
# how to show a time only: what is stored is UTC.
os.environ.setdefault('POLARS_IGNORE_TIMEZONE_PARSE_ERROR', '1')


@dataclasses.dataclass(frozen=True)
class ParquetFile:
  """A Parquet file and which of its columns are read.

  Attributes:
    path: the path of the file.
    columns: the columns to read.
    name: what messages call it.
    constants: columns that the file lacks, and the text in all their rows;
      None for no value.
  """

  path: pathlib.Path
  columns: Sequence[raw_log.Column]
  name: str = ''
  constants: Mapping[raw_log.Column, str | None] = dataclasses.field(
    default_factory=dict
  )


def read(
  file: ParquetFile,
  report: raw_log.RowReport,
  select: Mapping[str, str] | None = None,
) -> Iterator[pl.DataFrame]:
  """Yields blocks of well-formed rows of a Parquet file, in file order.

  A row is malformed if a column is null (as NaN is) or not of its kind.

  Args:
    file: what to read.
    report: updated as blocks are read.
    select: file column -> output column; None keeps all names.

  Raises:
    UsageError: unreadable file, or missing column.
  """
  columns = (*file.columns, *file.constants)
  select = dict(select or {column.name: column.name for column in columns})
  types = check(file)
  source = _scan(file.path).with_columns(
    pl.lit(value, pl.String).alias(column.name)
    for column, value in file.constants.items()
  )
  for column in columns:
    if column.kind == 'time' and types[column.name] == pl.Float32:
      report.notes.append(
        f'{file.name or file.path.name}: {column.name!r} is of 32 bit, in which'
        f' times above {2**24:,} are rounded; write it as integers, or in 64'
        ' bit'
      )
  raw = source.select(column.name for column in columns)
  collect = functools.partial(_collect, file.path)
  raw_values.settle(columns, types, raw, collect)
  values, valid = raw_values.typed(columns, types, select)
  rounded = _Rounded(file, columns, types)
  scan = source.select(*values, *rounded.counts, valid.alias(raw_values.VALID))
  rows = _collect(file.path, source.select(pl.len())).item()
  for start in range(0, rows, _BLOCK_ROWS):
    frame = _collect(file.path, scan.slice(start, _BLOCK_ROWS))
    is_valid = frame.drop_in_place(raw_values.VALID)
    rounded.take(frame)
    report.rows_read += len(frame)
    bad = (~is_valid).arg_true().to_list()
    report.malformed += len(bad)
    report.drop('malformed', len(bad))
    for row in bad[: max(0, raw_log.MAX_EXAMPLES - len(report.examples))]:
      raw_row = _collect(file.path, raw.slice(start + row, 1))
      report.examples.append(
        f'row {start + row + 1}: {raw_row.row(0)!r:.80}'
        f' ({raw_values.fault(raw_row, columns)})'
      )
    yield raw_values.keep(frame, is_valid, report)
  report.notes.extend(rounded.notes())


class _Rounded:
  """Counts the ids that a column of floats may have rounded into others."""

  def __init__(
    self,
    file: ParquetFile,
    columns: Sequence[raw_log.Column],
    types: Mapping[str, pl.DataType],
  ) -> None:
    self._file = file.name or file.path.name
    self._found: dict[str, int] = {}
    self._types = types
    self.counts: list[pl.Expr] = []  # One number each, to be read with a block.
    for column in columns:
      limit = _EXACT_BELOW.get(types[column.name])
      if limit is not None and column.kind not in ('time', 'label'):
        value = pl.col(column.name)
        is_rounded = (value.abs() >= limit) & value.is_finite()
        self.counts.append(is_rounded.sum().alias(f'{_ROUNDED}{column.name}'))

  def take(self, frame: pl.DataFrame) -> None:
    """Takes the counts out of a block."""
    for expression in self.counts:
      name = expression.meta.output_name()
      count = frame.drop_in_place(name)[0]
      column = name.removeprefix(_ROUNDED)
      self._found[column] = self._found.get(column, 0) + count

  def notes(self) -> Iterator[str]:
    """Yields a remark for each column with such ids."""
    for name, count in self._found.items():
      if count:
        dtype = self._types[name]
        yield (
          f'{self._file}: {name!r} is of type {dtype}, which rounds whole'
          f' numbers from {_EXACT_BELOW[dtype]:,} on:'
          f' {raw_log.counted(count, "row", "rows")} may have the id of others;'
          ' write the column as integers, or as text'
        )


def check(file: ParquetFile) -> dict[str, pl.DataType]:
  """Returns the types of the columns to be read, constants included.

  Raises:
    UsageError: not a Parquet file, a column is missing, or is of a type that
      no value can be read from.
  """
  present = schema(file.path)
  raw_log.require_columns(
    file.path, [column.name for column in file.columns], list(present)
  )
  for column in file.columns:
    _check_type(file.path, column, present[column.name])
  types: dict[str, pl.DataType] = {
    column.name: present[column.name] for column in file.columns
  }
  return types | {column.name: pl.String() for column in file.constants}


def are_alike(
  column: raw_log.Column, one: pl.DataType, other: pl.DataType
) -> bool:
  """Returns whether a column of these types means the same in two files.

  1 is another text than true, and a number is no date.
  """
  if pl.Null in (one, other) or column.kind == 'label':
    return True
  if column.kind == 'time':
    is_text = pl.String in (one, other)
    return is_text or one.is_temporal() == other.is_temporal()
  return one == other or not any(
    dtype.is_temporal() or dtype == pl.Boolean for dtype in (one, other)
  )


def _scan(path: pathlib.Path) -> pl.LazyFrame:
  """Returns a file's rows: no times with a zone, and text wherever it is.

  Times with a zone become those of UTC without one, and dictionaries text. The
  file's name is no pattern, and its folders are no columns.
  """
  rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
  changed = []
  for name, dtype in rows.collect_schema().items():
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
      of_utc = pl.col(name).to_physical().cast(pl.Datetime(dtype.time_unit))
      changed.append(of_utc)
    elif dtype in (pl.Categorical, pl.Enum):
      changed.append(pl.col(name).cast(pl.String))
  return rows.with_columns(changed)


def schema(path: pathlib.Path) -> dict[str, pl.DataType]:
  """Returns the columns of a Parquet file.

  Raises:
    UsageError: not a Parquet file.
  """
  try:
    return dict(_scan(path).collect_schema())
  except (pl.exceptions.PolarsError, OSError) as error:
    line = str(error).splitlines()[0]
    raise errors.UsageError(f'{path}: not a Parquet file ({line}).') from None


def zone(path: pathlib.Path, name: str) -> str | None:
  """Returns the time zone in which a column shows its times, if it has one."""
  rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
  return getattr(rows.collect_schema()[name], 'time_zone', None)


def has_fractions(path: pathlib.Path, name: str) -> bool:
  """Returns whether a column holds times that are no whole seconds."""
  dtype = schema(path)[name]
  per_second = 10**9 if dtype == pl.Time else 1
  if isinstance(dtype, pl.Datetime):
    per_second = {'ms': 10**3, 'us': 10**6, 'ns': 10**9}[dtype.time_unit]
  if per_second == 1:
    return False
  has_rest = pl.col(name).to_physical() % per_second != 0
  return bool(_collect(path, _scan(path).select(has_rest.any())).item())


def _check_type(
  path: pathlib.Path, column: raw_log.Column, dtype: pl.DataType
) -> None:
  """Refuses a column of a type that no value could be read from."""
  is_wrong = dtype.is_nested()
  if column.kind == 'set' and dtype in (pl.List, pl.Array):
    dtype = getattr(dtype, 'inner', dtype)
    is_wrong = dtype.is_nested()
  elif column.kind in ('str', 'id') and dtype in (pl.List, pl.Array):
    raise errors.UsageError(
      f'{path}: column {column.name!r} is of type {dtype}, several values in a'
      ' row; a field has one value for each behavior. Keep one of them, the'
      f' first, say (Polars: pl.col({column.name!r}).list.first(), pandas:'
      f' log[{column.name!r}].str[0]); or, as a further field, name it in'
      ' data.columns.sets.'
    )
  if column.kind in ('str', 'id', 'set'):
    expected = 'text, numbers, dates or times'
    is_wrong |= dtype == pl.Duration
  elif column.kind == 'time':
    expected = 'numbers, dates with times, or text that holds them'
    is_wrong |= dtype in (pl.Time, pl.Duration, pl.Binary, pl.Boolean)
  else:
    expected = 'numbers'
    is_wrong |= dtype.is_temporal() or dtype == pl.Binary
  if isinstance(dtype, pl.Decimal) and dtype.precision > _MAX_DIGITS:
    is_wrong, expected = True, f'{expected}, of {_MAX_DIGITS} digits at most'
  if is_wrong:
    raise errors.UsageError(
      f'{path}: column {column.name!r} is of type {dtype}; expected {expected}.'
    )


def _collect(path: pathlib.Path, frame: pl.LazyFrame) -> pl.DataFrame:
  try:
    return frame.collect()
  except (pl.exceptions.PolarsError, OSError) as error:
    line = str(error).splitlines()[0]
    raise errors.UsageError(f'{path}: cannot be read ({line}).') from None
