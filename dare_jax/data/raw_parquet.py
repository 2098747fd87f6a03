"""Reads raw logs in Parquet, as `raw_log` reads those in CSV."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib

import polars as pl

from dare_jax import errors
from dare_jax.data import raw_log
from dare_jax.data import raw_values

_BLOCK_ROWS = 4_000_000
_FIRST_ROWS = 1_000


def read(
  path: pathlib.Path,
  columns: Sequence[raw_log.Column],
  report: raw_log.RowReport,
  max_malformed_share: float,
  select: Mapping[str, str] | None = None,
) -> Iterator[pl.DataFrame]:
  """Yields blocks of well-formed rows of a Parquet file, in file order.

  A row is malformed if a column is null (as NaN is) or not of its kind.

  Args:
    path: a Parquet file.
    columns: the columns to read.
    report: updated as blocks are read.
    max_malformed_share: share of malformed rows above which the log is refused.
    select: file column -> output column; None keeps all names.

  Raises:
    UsageError: unreadable file, missing column, no row, or too many malformed.
  """
  present = schema(path)
  select = dict(select or {column.name: column.name for column in columns})
  for column in columns:
    raw_log.require_columns(path, [column.name], list(present))
    _check_type(path, column, present[column.name])
  source = pl.scan_parquet(path)
  raw = source.select(column.name for column in columns)
  raw_values.settle(columns, _collect(path, raw.head(_FIRST_ROWS)))
  values, valid = raw_values.typed(columns, present, select)
  scan = source.select(*values, valid.alias(raw_values.VALID))
  rows = _collect(path, source.select(pl.len())).item()
  if rows == 0:
    raise errors.UsageError(f'{path}: the log has no rows.')
  for start in range(0, rows, _BLOCK_ROWS):
    frame = _collect(path, scan.slice(start, _BLOCK_ROWS))
    is_valid = frame.drop_in_place(raw_values.VALID)
    report.rows_read += len(frame)
    bad = (~is_valid).arg_true().to_list()
    report.malformed += len(bad)
    report.drop('malformed', len(bad))
    for row in bad[: max(0, raw_log.MAX_EXAMPLES - len(report.examples))]:
      raw_row = _collect(path, raw.slice(start + row, 1))
      report.examples.append(
        f'row {start + row + 1}: {raw_row.row(0)!r:.80}'
        f' ({raw_values.fault(raw_row, columns)})'
      )
    yield raw_values.keep(frame, is_valid, report)
  raw_log.check_share(path, report, max_malformed_share)


def schema(path: pathlib.Path) -> dict[str, pl.DataType]:
  """Returns the columns of a Parquet file.

  Raises:
    UsageError: not a Parquet file.
  """
  try:
    return dict(pl.scan_parquet(path).collect_schema())
  except (pl.exceptions.PolarsError, OSError) as error:
    line = str(error).splitlines()[0]
    raise errors.UsageError(f'{path}: not a Parquet file ({line}).') from None


def _check_type(
  path: pathlib.Path, column: raw_log.Column, dtype: pl.DataType
) -> None:
  """Refuses a column of a type that no value could be read from."""
  is_wrong = dtype.is_nested()
  if column.kind in ('str', 'id'):
    expected = 'text or numbers'
  elif column.kind == 'time':
    expected = 'numbers, dates with times, or text that holds them'
    is_wrong |= dtype in (pl.Time, pl.Duration, pl.Binary, pl.Boolean)
  else:
    expected = 'numbers'
    is_wrong |= dtype.is_temporal() or dtype == pl.Binary
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
