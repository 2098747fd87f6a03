"""Reads the files of a log one after another, as one log."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import polars as pl

from dare_jax import errors
from dare_jax.logs import compression
from dare_jax.logs import log_files
from dare_jax.logs import raw_log
from dare_jax.logs import raw_parquet
from dare_jax.logs.csv import csv_dialect
from dare_jax.logs.csv import raw_csv

_MAX_NOTES = 10  # of files


def read(
  parts: Sequence[log_files.Part],
  columns: Sequence[raw_log.Column],
  report: raw_log.RowReport,
  select: Mapping[str, str],
  order: Sequence[str] | None = None,
  separator: str | None = None,
) -> Iterator[pl.DataFrame]:
  """Yields blocks of well-formed rows of all files, in order.

  Each file is looked at before the first is read. Columns are found by name;
  one that a file lacks may be given by its folders, `column=value`.

  Args:
    parts: the files, all in Parquet or all of text.
    columns: the columns to read.
    report: updated as files are read.
    select: file column -> output column.
    order: names of the columns of text without header; None: line one of each
      file names them.
    separator: the text between two fields, the same in all files; None: it is
      found in the first file.

  Raises:
    UsageError: a file that cannot be read, or without one of the columns.
  """
  files: Sequence[raw_parquet.ParquetFile | raw_csv.CsvFile]
  if compression.is_parquet(parts[0].path):
    files = _parquet_files(parts, columns)
  else:
    files = _csv_files(parts, columns, order, separator)
  for file in files:
    of_file = report if len(files) == 1 else raw_log.RowReport()
    if isinstance(file, raw_csv.CsvFile):
      yield from raw_csv.read(file, of_file, select)
    else:
      yield from raw_parquet.read(file, of_file, select)
    if of_file is not report:
      report.add(of_file, file.name)
  more = len(report.notes) - _MAX_NOTES
  if more > 0:
    report.notes[_MAX_NOTES:] = [f'{more} more such notes, of other files']


def _parquet_files(
  parts: Sequence[log_files.Part], columns: Sequence[raw_log.Column]
) -> list[raw_parquet.ParquetFile]:
  """Returns the files as they are to be read.

  Raises:
    UsageError: one lacks a column, or has it as another type than others.
  """
  files = []
  first: dict[str, pl.DataType] = {}
  for part in parts:
    present = raw_parquet.schema(part.path)
    own, constants = _by_place(part, columns, list(present))
    _require(part, own, list(present))
    file = raw_parquet.ParquetFile(part.path, own, part.name, constants)
    types = raw_parquet.check(file)
    for column in own:
      found = types[column.name]
      before = first.setdefault(column.name, found)
      if not raw_parquet.are_alike(column, found, before):
        raise errors.UsageError(
          f'{part.path}: column {column.name!r} is of type {found}, but of'
          f' type {before} in files before; write it as one type in all.'
        )
      if before == pl.Null:
        first[column.name] = found
    files.append(file)
  return files


def _csv_files(
  parts: Sequence[log_files.Part],
  columns: Sequence[raw_log.Column],
  order: Sequence[str] | None,
  separator: str | None,
) -> list[raw_csv.CsvFile]:
  """Returns the files as they are to be read, without empty ones.

  Raises:
    UsageError: one lacks a column, or is no text.
  """
  named = {column.name: column for column in columns}
  files = []
  for part in parts:
    head = compression.head(part.path)
    if not head:
      continue
    separator = separator or csv_dialect.find(
      part.path,
      head,
      named.keys() - part.partition,
      len(order) if order else None,
    )
    single = [name for name, one in named.items() if one.kind != 'set']
    names = order or raw_csv.header(part.path, separator, single)
    own, constants = _by_place(part, columns, names)
    _require(part, own, names, csv_dialect.hint(names, separator))
    files.append(
      raw_csv.CsvFile(
        part.path,
        [
          named.get(name, raw_log.Column(name, 'str', required=False))
          for name in names
        ],
        header=not order,
        separator=separator,
        name=part.name,
        constants=constants,
      )
    )
  return files


def _by_place(
  part: log_files.Part,
  columns: Sequence[raw_log.Column],
  present: Sequence[str],
) -> tuple[list[raw_log.Column], dict[raw_log.Column, str | None]]:
  """Returns columns of a file itself, and those that its folders give."""
  own, constants = [], {}
  for column in columns:
    if column.name in part.partition and column.name not in present:
      constants[column] = part.partition[column.name]
    else:
      own.append(column)
  return own, constants


def _require(
  part: log_files.Part,
  columns: Sequence[raw_log.Column],
  present: Sequence[str],
  hint: str = '',
) -> None:
  """Refuses a file that lacks a column; says what its folders give."""
  raw_log.require_columns(
    part.path,
    [column.name for column in columns],
    [*present, *(f'{name} (of a folder)' for name in part.partition)],
    hint,
  )
