"""Reads raw logs in CSV in blocks, counts what is wrong with them and where."""

from __future__ import annotations

import codecs
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import pathlib

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.logs import compression
from dare_jax.logs import raw_log
from dare_jax.logs import raw_values
from dare_jax.logs.csv import csv_dialect
from dare_jax.logs.csv import csv_lines
from dare_jax.logs.csv import csv_spaces

_BLOCK_BYTES = 64 << 20
_FIRST_ROWS = 10


@dataclasses.dataclass(frozen=True)
class CsvFile:
  """A file of text and what its fields mean.

  Attributes:
    path: the path of the file, which may be compressed by gzip or zstd.
    columns: its columns in order.
    header: whether line one names the columns (they must match `columns`).
    separator: the text between two fields.
    name: what notes call it; empty: the last part of its path.
    constants: columns that the file lacks, and the text in all their rows;
      None for no value.
  """

  path: pathlib.Path
  columns: Sequence[raw_log.Column]
  header: bool
  separator: str = ','
  name: str = ''
  constants: Mapping[raw_log.Column, str | None] = dataclasses.field(
    default_factory=dict
  )

  @property
  def names(self) -> list[str]:
    """Names of the columns in the file."""
    return [column.name for column in self.columns]

  @property
  def all_columns(self) -> list[raw_log.Column]:
    """Those of the file, and the constants."""
    return [*self.columns, *self.constants]

  @property
  def dialect(self) -> csv_lines.Dialect:
    """How fields are told apart."""
    return csv_lines.Dialect(self.separator)


def read(
  file: CsvFile,
  report: raw_log.RowReport,
  select: Mapping[str, str] | None = None,
) -> Iterator[pl.DataFrame]:
  """Yields blocks of well-formed rows as typed frames, in file order.

  A row is malformed if it has another number of columns, an empty field among
  the selected ones, a value that is not of its column's kind, quotes that do
  not enclose a whole field, or bytes that are not UTF-8. A malformed last line
  without a line break is taken for a truncated file: reported, never an error.
  Blank lines at the end are no rows.

  Args:
    file: what to read.
    report: updated as blocks are read.
    select: file column -> output column; None keeps all names.

  Raises:
    UsageError: wrong columns in the first line.
  """
  if select is None:
    select = {name: name for name in file.names}
  faults = _Faults(file, select, report)
  line = 1
  rest = b''
  for block, is_last in _blocks(file.path):
    block = csv_spaces.strip(
      rest + block, file.separator, is_last, len(file.columns)
    )
    if line == 1 and not rest:
      block = _check_first_line(file, block)
      line += file.header
    if not block:
      continue
    text, starts, used = csv_lines.parse(
      block, file.names, is_last, file.dialect
    )
    block, rest = block[:used], block[used:]
    text = text.with_columns(
      pl.lit(value, pl.String).alias(column.name)
      for column, value in file.constants.items()
    )
    raw_values.settle(file.all_columns, text.schema, text.lazy())
    frame, is_valid = _typed(file, text, block, starts, select)
    report.rows_read += len(frame)
    if not is_valid.all():
      faults.add(block, starts, is_valid, line)
    line += len(frame) if starts is None else csv_lines.num_lines(block)
    if not block.endswith(b'\n') and len(is_valid) and is_valid[-1]:
      report.notes.append(
        f'{file.name or file.path.name} does not end in a line break; its last'
        f' line, {line - 1}, may be cut'
      )
    yield raw_values.keep(frame, is_valid, report)


def header(
  path: pathlib.Path, separator: str = ',', needed: Collection[str] = ()
) -> list[str]:
  """Returns the column names in line one of a file.

  Args:
    path: the path of the file.
    separator: the text between two names.
    needed: names of the columns that will be read.

  Raises:
    UsageError: not UTF-8 text, a name that occurs twice, or a needed column
      that holds several values in a row.
  """
  fields = _first_fields(path, compression.head(path), separator)
  csv_dialect.require_single_values(path, fields, needed)
  names = csv_dialect.names(fields)
  for name in names:
    if names.count(name) > 1:
      raise errors.UsageError(
        f'{path}: the header names column {name!r} twice; rename one.'
      )
  return names


def _blocks(path: pathlib.Path) -> Iterator[tuple[bytes, bool]]:
  """Yields (bytes that end at a line break, whether they are the last)."""
  with compression.open_text(path) as file:
    rest, mark, is_last = b'', codecs.BOM_UTF8, False
    while not is_last:
      chunk = compression.read(file, _BLOCK_BYTES)
      is_last = len(chunk) < _BLOCK_BYTES
      chunk = rest + chunk.removeprefix(mark)
      mark = b''
      cut = _without_blank_end(chunk)
      if not is_last:
        cut = min(cut, chunk.rfind(b'\n') + 1)
      rest = chunk[cut:]
      if cut or is_last:
        yield chunk[:cut], is_last
      elif chunk.strip():
        _refuse_line_ends(path, chunk)


def _without_blank_end(chunk: bytes) -> int:
  """Returns where the blank lines begin in which a chunk ends."""
  end = len(chunk)
  while end and chunk[end - 1] in b' \t\r\n':
    end -= 1
  line_break = chunk.find(b'\n', end)
  return line_break + 1 if end and line_break >= 0 else end and len(chunk)


def _refuse_line_ends(path: pathlib.Path, line: bytes) -> None:
  ends = 'carriage returns' if b'\r' in line else 'nothing'
  raise errors.UsageError(
    f'{path}: expected lines that end in a line break (\\n or \\r\\n), found'
    f' {ends} between lines in {len(line)} bytes; convert the file.'
  )


def _first_fields(
  path: pathlib.Path, block: bytes, separator: str
) -> list[str]:
  line = block.partition(b'\n')[0].removesuffix(b'\r')
  if b'\r' in line:
    _refuse_line_ends(path, line)
  try:
    text = csv_spaces.strip(line, separator).decode()
  except UnicodeDecodeError as error:
    raise errors.UsageError(
      f'{path}: line 1 is not UTF-8 text ({error.reason}); expected CSV.'
      ' Convert the file to UTF-8.'
    ) from None
  if csv_lines.Dialect(separator).has_quotes:
    fields = next(csv.reader([text], delimiter=separator), [])
  else:
    fields = text.split(separator)
  return [field.strip() for field in fields]


def _check_first_line(file: CsvFile, block: bytes) -> bytes:
  """Returns the block without its header; refuses a wrong column count."""
  found = _first_fields(file.path, block, file.separator)
  names = file.names
  wrong_names = file.header and csv_dialect.names(found) != names
  if len(found) != len(names) or wrong_names:
    kind = (
      'a header with the columns' if file.header else 'no header and columns'
    )
    raise errors.UsageError(
      f'{file.path}: expected {kind} {",".join(names)} ({len(names)}); line 1'
      f' has {len(found)}: {",".join(found)[:80]!r}.'
      f'{csv_dialect.hint(found, file.separator)}'
    )
  if not file.header:
    return block
  rest = block.partition(b'\n')[2]
  _check_widths(file, rest.split(b'\n', _FIRST_ROWS)[:-1])
  return rest


def _check_widths(file: CsvFile, lines: Sequence[bytes]) -> None:
  """Refuses a file the first rows of which all differ from the header."""
  expected = len(file.columns)
  widths = set()
  for line in lines[:_FIRST_ROWS]:
    try:
      widths.add(len(csv_lines.fields([line], expected, file.dialect)))
    except ValueError:
      return
  if len(lines) > 1 and len(widths) == 1 and expected not in widths:
    raise errors.UsageError(
      f'{file.path}: the header has {expected} columns, rows have'
      f' {widths.pop()} (line 2: {_shown(lines[:1])}); mend the header.'
    )


def _typed(
  file: CsvFile,
  text: pl.DataFrame,
  block: bytes,
  starts: np.ndarray | None,
  select: Mapping[str, str],
) -> tuple[pl.DataFrame, pl.Series]:
  """Casts a block of strings; also returns which rows are well formed."""
  for thorough in (False, True):
    values, valid = raw_values.typed(
      file.all_columns, text.schema, select, thorough
    )
    valid &= pl.col(csv_lines.EXTRA).fill_null('') == ''
    frame = text.lazy().select(*values, valid.alias(raw_values.VALID)).collect()
    is_valid = frame.drop_in_place(raw_values.VALID)
    if is_valid.all():
      break
  # A row with too few columns ends in a null, as one with an empty last field.
  last = file.columns[-1]
  if last.name not in select or not last.required or '' in last.missing:
    suspect = (is_valid & text[last.name].is_null()).arg_true()
    if len(suspect):
      line = suspect if starts is None else starts[suspect]
      num_fields = csv_lines.num_fields(block, line, file.dialect)
      is_valid[suspect.filter(num_fields != len(file.columns))] = False
  return frame, is_valid


class _Faults:
  """Counts malformed rows and says what is wrong with the first."""

  def __init__(
    self,
    file: CsvFile,
    select: Mapping[str, str],
    report: raw_log.RowReport,
  ) -> None:
    self._file = file
    self._columns = [
      column for column in file.all_columns if column.name in select
    ]
    self._report = report

  def add(
    self,
    block: bytes,
    starts: np.ndarray | None,
    is_valid: pl.Series,
    line: int,
  ) -> None:
    """Takes in the malformed rows of a block that starts at line `line`."""
    report = self._report
    if starts is None:
      starts = np.arange(len(is_valid))
    bad = (~is_valid).arg_true().to_list()
    if not block.endswith(b'\n') and bad[-1] == len(is_valid) - 1:
      at = line + starts[bad.pop()]
      report.drop('truncated last line', 1)
      report.notes.append(
        f'{self._file.name or self._file.path.name}: line {at}, the last one,'
        ' is truncated and was left out'
      )
    report.malformed += len(bad)
    report.drop('malformed', len(bad))
    shown = bad[: max(0, raw_log.MAX_EXAMPLES - len(report.examples))]
    if shown:
      lines = csv_lines.split(block)
      ends = [*starts[1:], len(lines)]
      for row in shown:
        own = lines[starts[row] : ends[row]]
        report.examples.append(
          f'line {line + starts[row]}: {_shown(own)} ({self._reason(own)})'
        )

  def _reason(self, lines: Sequence[bytes]) -> str:
    names = self._file.names
    try:
      fields = csv_lines.fields(lines, len(names), self._file.dialect)
    except ValueError as error:
      return str(error)
    if lines[0] in (b'', b'\r'):
      return 'an empty line'
    if len(fields) != len(names):
      expected = 'the header has' if self._file.header else 'expected'
      return f'{len(fields)} fields, {expected} {len(names)}'
    row: dict[str, str | None] = dict(zip(names, fields, strict=True))
    for column, value in self._file.constants.items():
      row[column.name] = value
    schema = dict.fromkeys(row, pl.String)
    frame = pl.DataFrame({k: [v] for k, v in row.items()}, schema)
    return raw_values.fault(frame, self._columns)


def _shown(lines: Sequence[bytes]) -> str:
  text = b'\n'.join(lines).removesuffix(b'\r').decode(errors='replace')
  return repr(text[:80])
