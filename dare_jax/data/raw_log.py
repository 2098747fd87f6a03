"""Reads raw logs in blocks, counts what is wrong with them and where.

Every reader yields Polars frames with the columns `user`, `item`, `category`,
`time` (int64), further fields, and `label` where the log has impressions.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import gzip
import os
import pathlib
from typing import Any
import zlib

import polars as pl

from dare_jax import errors

_BLOCK_BYTES = 64 << 20
MAX_EXAMPLES = 5  # of malformed rows
_EXTRA = '_extra'  # takes the first field beyond the expected ones


@dataclasses.dataclass
class RowReport:
  """What happened to the rows of a raw log.

  Attributes:
    rows_read: all rows, malformed ones included, without header.
    rows_kept: rows that became behaviors or impressions.
    dropped: rows dropped, by reason.
    malformed: rows that could not be read (a part of `dropped`).
    examples: the first malformed rows, each with its line number.
    notes: further remarks for the data card.
  """

  rows_read: int = 0
  rows_kept: int = 0
  malformed: int = 0
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)
  examples: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)

  def drop(self, reason: str, count: int) -> None:
    if count:
      self.dropped[reason] = self.dropped.get(reason, 0) + count

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Column:
  """One column of a raw log.

  Attributes:
    name: its name in the file (any name if the file has no header).
    kind: 'int' (0 or more), 'real_int' (any int64) or 'str'.
    pattern: a regular expression that the whole text must match, or None.
    required: False (for 'str'): an empty field is the value '', not a fault.
  """

  name: str
  kind: str = 'int'
  pattern: str | None = None
  required: bool = True


def require_file(path: str | pathlib.Path | None, what: str) -> pathlib.Path:
  """Returns `path` if it is a readable, non-empty file.

  Raises:
    UsageError: no path given, no such file, or an empty one.
  """
  if not path:
    raise errors.UsageError(
      f'data.input is not set: expected the path of {what}; pass '
      '--input=PATH to prepare or --config.data.input=PATH to train.'
    )
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise errors.UsageError(
      f'data.input={path}: no such file; expected {what}.'
    )
  if not os.access(file, os.R_OK):
    raise errors.UsageError(
      f'data.input={path}: no permission to read it; expected {what}.'
    )
  if file.stat().st_size == 0:
    raise errors.UsageError(f'{path}: the log is empty; expected {what}.')
  return file


def read_csv(
  path: pathlib.Path,
  columns: Sequence[Column],
  report: RowReport,
  header: bool,
  max_malformed_share: float,
  select: Mapping[str, str] | None = None,
) -> Iterator[pl.DataFrame]:
  """Yields blocks of well-formed rows as typed frames, in file order.

  A row is malformed if it has another number of columns, an empty field among
  the selected ones, or a value that is not of its column's kind. A malformed
  last line without a line break is taken for a truncated file: reported, never
  an error.

  Args:
    path: a CSV file, or the same gzipped; fields hold no line breaks.
    columns: the file's columns in order.
    report: updated as blocks are read.
    header: whether line one names the columns (they must match `columns`).
    max_malformed_share: share of malformed rows above which the log is refused.
    select: file column -> output column; None keeps all names.

  Raises:
    UsageError: wrong columns in the first line; too many malformed rows; no
      row at all.
  """
  names = [column.name for column in columns]
  select = dict(select or {name: name for name in names})
  line = 1
  for block, is_last in _blocks(path):
    if line == 1:
      block = _check_first_line(path, block, names, header)
      line += header
      if not block:
        continue
    frame = _parse(block, names)
    frame, is_valid = _typed(frame, block, columns, select)
    report.rows_read += len(frame)
    if not is_valid.all():
      _report_malformed(block, is_valid, line, is_last, path, report)
    line += len(frame)
    yield frame.filter(is_valid)
  if report.rows_read == 0:
    raise errors.UsageError(f'{path}: the log has no rows.')
  check_share(path, report, max_malformed_share)


def csv_header(path: pathlib.Path) -> list[str]:
  """Returns the column names in line one of a CSV file.

  Raises:
    UsageError: not UTF-8 text, or a name that occurs twice.
  """
  block, _ = next(_blocks(path), (b'', True))
  found = _first_fields(path, block.partition(b'\n')[0])
  for name in found:
    if found.count(name) > 1:
      raise errors.UsageError(
        f'{path}: the header names column {name!r} twice; rename one.'
      )
  return found


def require_columns(
  path: pathlib.Path, names: Sequence[str], present: Sequence[str]
) -> None:
  """Raises UsageError if a column named in the config is not there."""
  for name in names:
    if name not in present:
      raise errors.UsageError(
        f'{path}: no column {name!r}; it has {", ".join(present)}. Name the'
        ' columns with --config.data.columns.ROLE=NAME.'
      )


def check_share(
  path: pathlib.Path, report: RowReport, max_malformed_share: float
) -> None:
  """Raises UsageError if too many of the rows read were malformed."""
  if report.malformed > max_malformed_share * report.rows_read:
    raise errors.UsageError(
      f'{path}: {report.malformed} of {report.rows_read} rows are malformed,'
      f' more than data.max_malformed_share={max_malformed_share:g} allows;'
      f' first: {"; ".join(report.examples[:3])}. Mend'
      ' the log or raise the limit.'
    )


def _blocks(path: pathlib.Path) -> Iterator[tuple[bytes, bool]]:
  """Yields (bytes that end at a line break, whether it is the last block)."""
  opener = gzip.open if path.suffix == '.gz' else open
  try:
    with opener(path, 'rb') as file:
      rest = b''
      while chunk := file.read(_BLOCK_BYTES):
        chunk = rest + chunk
        cut = chunk.rfind(b'\n') + 1
        rest = chunk[cut:]
        if cut:
          yield chunk[:cut], False
      if rest:
        yield rest, True
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise errors.UsageError(
      f'{path}: damaged gzip file ({error}); fetch it again.'
    ) from None


def _first_fields(path: pathlib.Path, line: bytes) -> list[str]:
  try:
    text = line.decode('utf-8-sig').strip('\r')
  except UnicodeDecodeError as error:
    raise errors.UsageError(
      f'{path}: line 1 is not UTF-8 text ({error.reason}); expected CSV.'
    ) from None
  return [field.strip() for field in next(csv.reader([text]), [])]


def _check_first_line(
  path: pathlib.Path, block: bytes, names: Sequence[str], header: bool
) -> bytes:
  """Returns the block without its header; refuses a wrong column count."""
  first, _, rest = block.partition(b'\n')
  found = _first_fields(path, first)
  wrong_names = header and found != list(names)
  if len(found) != len(names) or wrong_names:
    kind = 'a header with the columns' if header else 'no header and columns'
    raise errors.UsageError(
      f'{path}: expected {kind} {",".join(names)} ({len(names)}); line 1 has'
      f' {len(found)}: {",".join(found)[:80]!r}.'
    )
  return rest if header else block


def _parse(block: bytes, names: Sequence[str]) -> pl.DataFrame:
  """Reads a block as strings, one row a line; missing fields are null."""
  if b'"' not in block:
    return _strings(block, names, quote=None)
  try:
    frame = _strings(block, names, quote='"')
  except pl.exceptions.ComputeError:
    frame = None
  num_lines = block.count(b'\n') + (not block.endswith(b'\n'))
  if frame is None or len(frame) != num_lines:
    # A quote that is never closed would swallow the lines after it.
    frame = _strings(block, names, quote=None)
    frame = frame.with_columns(pl.all().str.strip_chars('"'))
  return frame


def _strings(
  block: bytes, names: Sequence[str], quote: str | None
) -> pl.DataFrame:
  try:
    block.decode()
  except UnicodeDecodeError:
    block = block.decode(errors='replace').encode()
  return pl.read_csv(
    block,
    has_header=False,
    schema=dict.fromkeys([*names, _EXTRA], pl.String),
    quote_char=quote,
    truncate_ragged_lines=True,
    missing_columns='insert',
    raise_if_empty=False,
  )


def _typed(
  frame: pl.DataFrame,
  block: bytes,
  columns: Sequence[Column],
  select: Mapping[str, str],
) -> tuple[pl.DataFrame, pl.Series]:
  """Casts a block of strings; also returns which rows are well formed."""
  typed, valid = [], pl.col(_EXTRA).is_null()
  for column in columns:
    if column.name in select:
      value, ok = cast(column, pl.String())
      typed.append(value.alias(select[column.name]))
      valid &= ok
  valid = valid.alias(_EXTRA)
  result = frame.lazy().select(*typed, valid).collect()
  is_valid = result[_EXTRA]
  # A row with too few columns ends in a null, as one with an empty last field.
  last = columns[-1]
  if last.name not in select or not last.required:
    suspect = is_valid & frame[last.name].is_null()
    if suspect.any():
      is_valid &= ~suspect | (_num_fields(block) == len(columns))
  return result.drop(_EXTRA), is_valid


def _num_fields(block: bytes) -> pl.Series:
  lines = _lines(block).fill_null('').str.replace_all('"[^"]*"', '')
  return lines.str.count_matches(',') + 1


def _lines(block: bytes) -> pl.Series:
  """The lines of a block, to be parsed in another way or quoted."""
  text = block.decode(errors='replace').encode()
  return pl.read_csv(
    text,
    has_header=False,
    separator='\x01',
    quote_char=None,
    schema={'line': pl.String},
    truncate_ragged_lines=True,
  )['line']


def cast(column: Column, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
  """Returns a column's typed values and whether they are well formed."""
  value = pl.col(column.name)
  if column.kind == 'str':
    value = value.cast(pl.String)
    if not column.required:
      value = value.fill_null('')
  elif dtype.is_temporal():
    value = value.cast(pl.Datetime('ms')).dt.epoch('s')
  else:
    if dtype == pl.String:
      value = value.str.strip_chars()
    value = value.cast(pl.Int64, strict=False)
  ok = value.is_not_null()
  if column.kind == 'int':
    ok &= value >= 0
  if column.pattern is not None:
    ok &= value.cast(pl.String).str.contains(f'^(?:{column.pattern})$')
  return value, ok.fill_null(False)


def _report_malformed(
  block: bytes,
  is_valid: pl.Series,
  line: int,
  is_last: bool,
  path: pathlib.Path,
  report: RowReport,
) -> None:
  """Counts the malformed rows of a block that starts at line `line`."""
  bad = (~is_valid).arg_true().to_list()
  if is_last and bad[-1] == len(is_valid) - 1:
    bad.pop()
    report.drop('truncated last line', 1)
    report.notes.append(
      f'{path.name}: line {line + len(is_valid) - 1}, the last one, is'
      ' truncated and was left out'
    )
  report.malformed += len(bad)
  report.drop('malformed', len(bad))
  shown = bad[: max(0, MAX_EXAMPLES - len(report.examples))]
  if shown:
    lines = _lines(block)
    for row in shown:
      report.examples.append(f'line {line + row}: {(lines[row] or "")[:80]!r}')
