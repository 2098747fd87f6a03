"""Reads raw logs in blocks, counts what is wrong with them and where.

Every reader yields Polars frames with the columns `user`, `item`, `category`,
`time` (int64), further fields, and `label` where the log has impressions.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import gzip
import pathlib
from typing import Any

import polars as pl

from dare_jax import errors

_BLOCK_BYTES = 64 << 20
_MAX_ID = 2**63 - 1


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
  """One column of a CSV log: `kind` is 'int' (>= 0), 'real_int' or 'str'."""

  name: str
  kind: str = 'int'


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

  A row is malformed if it has another number of columns, an empty field, or a
  value that is not of its column's kind. A malformed last line without a line
  break is taken for a truncated file: reported, never an error.

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
    frame = pl.read_csv(
        block,
        has_header=False,
        schema={name: pl.String for name in [*names, '_extra']},
        truncate_ragged_lines=True,
        missing_columns='insert',
        raise_if_empty=False,
    )
    yield _typed(frame, columns, select, report, line, is_last, path)
    line += len(frame)
  if report.rows_read == 0:
    raise errors.UsageError(f'{path}: the log has no rows.')
  if report.malformed > max_malformed_share * report.rows_read:
    raise errors.UsageError(
        f'{path}: {report.malformed} of {report.rows_read} rows are malformed,'
        f' more than data.max_malformed_share={max_malformed_share:g} allows;'
        f' first: {"; ".join(report.examples[:3])}. Mend the log or raise'
        ' the limit.'
    )


def _blocks(path: pathlib.Path) -> Iterator[tuple[bytes, bool]]:
  """Yields (bytes that end at a line break, whether it is the last block)."""
  opener = gzip.open if path.suffix == '.gz' else open
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


def _check_first_line(
    path: pathlib.Path, block: bytes, names: Sequence[str], header: bool
) -> bytes:
  """Returns the block without its header; refuses a wrong column count."""
  first, _, rest = block.partition(b'\n')
  try:
    text = first.decode('utf-8-sig').strip('\r')
  except UnicodeDecodeError as error:
    raise errors.UsageError(
        f'{path}: line 1 is not UTF-8 text ({error.reason}); expected CSV with'
        f' the columns {",".join(names)}.'
    ) from None
  found = [field.strip().strip('"') for field in text.split(',')]
  wrong_names = header and found != list(names)
  if len(found) != len(names) or wrong_names:
    kind = 'a header with the columns' if header else 'no header and columns'
    raise errors.UsageError(
        f'{path}: expected {kind} {",".join(names)} ({len(names)}); line 1 has'
        f' {len(found)}: {text[:80]!r}.'
    )
  return rest if header else block


def _typed(
    frame: pl.DataFrame,
    columns: Sequence[Column],
    select: Mapping[str, str],
    report: RowReport,
    line: int,
    is_last: bool,
    path: pathlib.Path,
) -> pl.DataFrame:
  """Casts a block of strings; malformed rows are reported and left out."""
  typed, valid = [], pl.col('_extra').is_null()
  for column in columns:
    if column.name not in select:
      valid &= pl.col(column.name).is_not_null()
      continue
    value = pl.col(column.name)
    if column.kind != 'str':
      value = value.str.strip_chars().cast(pl.Int64, strict=False)
    ok = value.is_not_null()
    if column.kind == 'int':
      ok &= value >= 0
    valid &= ok.fill_null(False)
    typed.append(value.alias(select[column.name]))
  is_valid = frame.select(valid.alias('ok'))['ok']
  report.rows_read += len(frame)
  num_bad = len(frame) - int(is_valid.sum())
  if num_bad:
    bad = (~is_valid).arg_true().to_list()
    if is_last and bad[-1] == len(frame) - 1:
      bad.pop()
      report.drop('truncated last line', 1)
      report.notes.append(
          f'{path.name}: line {line + len(frame) - 1}, the last one, is'
          ' truncated and was left out'
      )
    report.malformed += len(bad)
    report.drop('malformed', len(bad))
    for row in bad[: max(0, 5 - len(report.examples))]:
      fields = [field for field in frame.row(row) if field is not None]
      report.examples.append(f'line {line + row}: {",".join(fields)[:80]!r}')
  return frame.filter(is_valid).select(typed)


def read_parquet(
    path: pathlib.Path, columns: Sequence[Column], report: RowReport
) -> Iterator[pl.DataFrame]:
  """Yields blocks of rows of a Parquet file; rows with nulls are dropped.

  Raises:
    UsageError: unreadable file, missing column, or a column of another kind.
  """
  try:
    scan = pl.scan_parquet(path)
    schema = scan.collect_schema()
  except (pl.exceptions.PolarsError, OSError) as error:
    line = str(error).splitlines()[0]
    raise errors.UsageError(f'{path}: not a Parquet file ({line}).') from None
  typed = []
  for column in columns:
    if column.name not in schema:
      raise errors.UsageError(
          f'{path}: no column {column.name!r}; it has {", ".join(schema)}.'
      )
    value = pl.col(column.name)
    if column.kind == 'str':
      value = value.cast(pl.String)
    elif schema[column.name].is_temporal():
      value = value.cast(pl.Datetime('ms')).dt.epoch('s')
    else:
      value = value.cast(pl.Int64, strict=False)
    typed.append(value)
  rows = scan.select(pl.len()).collect().item()
  step = 4_000_000
  for start in range(0, rows, step):
    frame = scan.select(typed).slice(start, step).collect()
    report.rows_read += len(frame)
    kept = frame.drop_nulls()
    report.malformed += len(frame) - len(kept)
    report.drop('malformed', len(frame) - len(kept))
    yield kept
