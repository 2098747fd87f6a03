"""Reads raw logs in CSV in blocks, counts what is wrong with them and where."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import gzip
import pathlib
import zlib

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.data import csv_lines
from dare_jax.data import csv_spaces
from dare_jax.data import raw_log
from dare_jax.data import raw_values

_BLOCK_BYTES = 64 << 20
_COMPRESSED = ('.zip', '.bz2', '.xz', '.zst', '.7z', '.lz4')
_FIRST_ROWS = 10


def read(
  path: pathlib.Path,
  columns: Sequence[raw_log.Column],
  report: raw_log.RowReport,
  header: bool,
  max_malformed_share: float,
  select: Mapping[str, str] | None = None,
) -> Iterator[pl.DataFrame]:
  """Yields blocks of well-formed rows as typed frames, in file order.

  A row is malformed if it has another number of columns, an empty field among
  the selected ones, a value that is not of its column's kind, quotes that do
  not enclose a whole field, or bytes that are not UTF-8. A malformed last line
  without a line break is taken for a truncated file: reported, never an error.

  Args:
    path: a CSV file, or the same gzipped.
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
  faults = _Faults(path, columns, select, header, report)
  line = 1
  rest = b''
  for block, is_last in _blocks(path):
    block = csv_spaces.strip(rest + block)
    if line == 1 and not rest:
      block = _check_first_line(path, block, names, header)
      line += header
    if not block:
      continue
    text, starts, used = csv_lines.parse(block, names, is_last)
    block, rest = block[:used], block[used:]
    raw_values.settle(columns, text)
    frame, is_valid = _typed(text, block, starts, columns, select)
    report.rows_read += len(frame)
    if not is_valid.all():
      faults.add(block, starts, is_valid, line)
    line += len(frame) if starts is None else csv_lines.num_lines(block)
    if not block.endswith(b'\n') and len(is_valid) and is_valid[-1]:
      report.notes.append(
        f'{path.name} does not end in a line break; its last line, {line - 1},'
        ' may be cut'
      )
    yield raw_values.keep(frame, is_valid, report)
  if report.rows_read == 0:
    raise errors.UsageError(f'{path}: the log has no rows.')
  raw_log.check_share(path, report, max_malformed_share)


def header(path: pathlib.Path) -> list[str]:
  """Returns the column names in line one of a CSV file.

  Raises:
    UsageError: not UTF-8 text, or a name that occurs twice.
  """
  block, _ = next(_blocks(path))
  found = _first_fields(path, block.partition(b'\n')[0])
  for name in found:
    if found.count(name) > 1:
      raise errors.UsageError(
        f'{path}: the header names column {name!r} twice; rename one.'
      )
  return found


def _blocks(path: pathlib.Path) -> Iterator[tuple[bytes, bool]]:
  """Yields (bytes that end at a line break, whether they are the last)."""
  suffix = path.suffix.lower()
  if suffix in _COMPRESSED:
    raise errors.UsageError(
      f'{path}: {suffix} files cannot be read; unpack it, or compress it with'
      ' gzip instead (.csv.gz).'
    )
  opener = gzip.open if suffix == '.gz' else open
  try:
    with opener(path, 'rb') as file:
      rest, mark, is_last = b'', codecs.BOM_UTF8, False
      while not is_last:
        chunk = file.read(_BLOCK_BYTES)
        is_last = len(chunk) < _BLOCK_BYTES
        chunk = rest + chunk.removeprefix(mark)
        mark = b''
        cut = len(chunk) if is_last else chunk.rfind(b'\n') + 1
        rest = chunk[cut:]
        if cut or is_last:
          yield chunk[:cut], is_last
        else:
          _refuse_line_ends(path, chunk)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise errors.UsageError(
      f'{path}: damaged gzip file ({error}); fetch it again.'
    ) from None


def _refuse_line_ends(path: pathlib.Path, line: bytes) -> None:
  ends = 'carriage returns' if b'\r' in line else 'nothing'
  raise errors.UsageError(
    f'{path}: expected lines that end in a line break (\\n or \\r\\n), found'
    f' {ends} between lines in {len(line)} bytes; convert the file.'
  )


def _first_fields(path: pathlib.Path, line: bytes) -> list[str]:
  if b'\r' in line.removesuffix(b'\r'):
    _refuse_line_ends(path, line)
  try:
    text = csv_spaces.strip(line).decode().strip('\r')
  except UnicodeDecodeError as error:
    raise errors.UsageError(
      f'{path}: line 1 is not UTF-8 text ({error.reason}); expected CSV.'
      ' Convert the file to UTF-8.'
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
      f'{raw_log.separator_hint(found)}'
    )
  if not header:
    return block
  _check_widths(path, rest.split(b'\n', _FIRST_ROWS)[:-1], len(names))
  return rest


def _check_widths(
  path: pathlib.Path, lines: Sequence[bytes], expected: int
) -> None:
  """Refuses a file the first rows of which all differ from the header."""
  widths = set()
  for line in lines[:_FIRST_ROWS]:
    try:
      widths.add(len(csv_lines.fields([line], expected)))
    except ValueError:
      return
  if len(lines) > 1 and len(widths) == 1 and expected not in widths:
    raise errors.UsageError(
      f'{path}: the header has {expected} columns, rows have {widths.pop()}'
      f' (line 2: {_shown(lines[:1])}); mend the header.'
    )


def _typed(
  text: pl.DataFrame,
  block: bytes,
  starts: np.ndarray | None,
  columns: Sequence[raw_log.Column],
  select: Mapping[str, str],
) -> tuple[pl.DataFrame, pl.Series]:
  """Casts a block of strings; also returns which rows are well formed."""
  for thorough in (False, True):
    values, valid = raw_values.typed(columns, text.schema, select, thorough)
    valid &= pl.col(csv_lines.EXTRA).fill_null('') == ''
    frame = text.lazy().select(*values, valid.alias(raw_values.VALID)).collect()
    is_valid = frame.drop_in_place(raw_values.VALID)
    if is_valid.all():
      break
  # A row with too few columns ends in a null, as one with an empty last field.
  last = columns[-1]
  if last.name not in select or not last.required or '' in last.missing:
    suspect = (is_valid & text[last.name].is_null()).arg_true()
    if len(suspect):
      line = suspect if starts is None else starts[suspect]
      is_short = _num_fields(block, line) != len(columns)
      is_valid[suspect.filter(is_short)] = False
  return frame, is_valid


def _num_fields(block: bytes, rows: pl.Series | np.ndarray) -> pl.Series:
  """Returns the number of fields in those lines, all of them regular."""
  if not csv_lines.is_text(block):
    block = block.decode(errors='replace').encode()
  lines = pl.read_csv(
    block,
    has_header=False,
    separator='\x01',
    quote_char=None,
    schema={'line': pl.String},
    truncate_ragged_lines=True,
  )['line']
  lines = lines[rows].fill_null('').str.replace_all('"[^"]*"', '')
  return lines.str.count_matches(',') + 1


class _Faults:
  """Counts malformed rows and says what is wrong with the first."""

  def __init__(
    self,
    path: pathlib.Path,
    columns: Sequence[raw_log.Column],
    select: Mapping[str, str],
    header: bool,
    report: raw_log.RowReport,
  ) -> None:
    self._path = path
    self._names = [column.name for column in columns]
    self._columns = [column for column in columns if column.name in select]
    self._expected = 'the header has' if header else 'expected'
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
        f'{self._path.name}: line {at}, the last one, is truncated and was left'
        ' out'
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
    try:
      fields = csv_lines.fields(lines, len(self._names))
    except ValueError as error:
      return str(error)
    if not fields:
      return 'an empty line'
    if len(fields) != len(self._names):
      return f'{len(fields)} fields, {self._expected} {len(self._names)}'
    pairs = zip(self._names, fields, strict=True)
    row = pl.DataFrame({name: [field] for name, field in pairs})
    return raw_values.fault(row, self._columns)


def _shown(lines: Sequence[bytes]) -> str:
  text = b'\n'.join(lines).removesuffix(b'\r').decode(errors='replace')
  return repr(text[:80])
