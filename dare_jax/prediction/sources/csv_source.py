"""Rows of CSV, each kept as the line that it is."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np
import polars as pl
import pyarrow as pa

from dare_jax import errors
from dare_jax.logs import compression
from dare_jax.logs.csv import csv_dialect
from dare_jax.logs.csv import csv_lines
from dare_jax.logs.csv import csv_spaces
from dare_jax.logs.csv import raw_csv
from dare_jax.prediction import blocks

_CHUNK_BYTES = 16 << 20
_BOM = '\ufeff'


@dataclasses.dataclass(frozen=True)
class Lines:
  """Rows that are lines, or several where a field holds line breaks.

  Attributes:
    lines: series of the text of each row, without its last line break.
    fields: what each column holds; empty fields are null.
    separator: the text between two fields.
  """

  lines: pl.Series
  fields: pl.DataFrame
  separator: str

  def as_text(self, rows: np.ndarray | None, added: pl.DataFrame) -> bytes:
    """Returns the lines, fields added to each; a `\\r` stays at its end."""
    line = pl.col('')
    bare = line.str.strip_suffix('\r')
    end = pl.when(line.str.ends_with('\r')).then(pl.lit('\r'))
    joined = pl.concat_str(
      [bare, *blocks.rendered(added, self.separator)], separator=self.separator
    )
    lines = self.lines if rows is None else self.lines[rows]
    frame = pl.concat([lines.alias('').to_frame(), added], how='horizontal')
    text = frame.select(pl.concat_str(joined, end.fill_null('')))
    found = text.to_series().to_list()
    return ('\n'.join(found) + '\n').encode() if found else b''

  def as_table(self, rows: np.ndarray | None, added: pl.DataFrame) -> pa.Table:
    """Returns rows as text, empty fields as null, beside new columns.

    Args:
      rows: int [n], which rows; None: all.
      added: the new columns, [n].
    """
    fields = self.fields if rows is None else self.fields[rows]
    table = fields.to_arrow(compat_level=pl.CompatLevel.oldest())
    return blocks.with_columns(table, added)


class CsvSource:
  """A file of CSV whose first line names the columns.

  It may be compressed by gzip or zstd; what separates its fields is found.
  """

  def __init__(self, path: pathlib.Path, needed: Sequence[str]) -> None:
    """Opens a file.

    Args:
      path: the path of the file.
      needed: columns that should be there, by which the separator is found.

    Raises:
      UsageError: no text, or no names in its first line.
    """
    self.path = path
    head = compression.head(path)
    self._separator = csv_dialect.find(path, head, needed, None)
    self.names: Sequence[str] = raw_csv.header(path, self._separator)
    self._dialect = csv_lines.Dialect(self._separator)

  def num_rows(self) -> int:
    """Returns how many rows there are, from the whole text."""
    count = -1  # The header.
    for raw, is_last in self._chunks():
      if b'"' in raw and self._dialect.has_quotes:
        return sum(len(rows.lines) for rows in self._parsed(()))
      count += csv_lines.num_lines(raw) if is_last else raw.count(b'\n')
    return max(count, 0)

  def nothing(self) -> Lines:
    """Returns an empty table with all columns."""
    schema = dict.fromkeys(self.names, pl.String)
    none = pl.Series([], dtype=pl.String)
    return Lines(none, pl.DataFrame(schema=schema), self._separator)

  def header_text(self, added: Sequence[str]) -> bytes:
    """Returns the first line with names added to it."""
    with compression.open_text(self.path) as file:
      line = compression.read(file, 1 << 20).partition(b'\n')[0]
    names = pl.Series([line.decode().removeprefix(_BOM)])
    values = pl.DataFrame({name: [name] for name in added})
    text = Lines(names, pl.DataFrame(), self._separator).as_text(None, values)
    return (_BOM.encode() if line.decode().startswith(_BOM) else b'') + text

  def read(
    self, size: int, wanted: range, columns: Sequence[str]
  ) -> Iterator[blocks.Block]:
    """Yields blocks, as `blocks.Source` says."""
    number, held = 0, Lines(pl.Series([], dtype=pl.String), pl.DataFrame(), '')
    for rows in self._parsed(columns):
      held = _joined(held, rows) if len(held.lines) else rows
      while len(held.lines) >= size:
        if number in wanted:
          yield self._block(number, size, _part(held, 0, size), columns)
        number += 1
        held = _part(held, size)
      if number >= wanted.stop:
        return
    if len(held.lines) and number in wanted:
      yield self._block(number, size, held, columns)

  def _block(
    self, number: int, size: int, rows: Lines, columns: Sequence[str]
  ) -> blocks.Block:
    return blocks.Block(number, number * size, rows.fields[list(columns)], rows)

  def _chunks(self) -> Iterator[tuple[bytes, bool]]:
    """Yields the text, and whether it is the last of it."""
    with compression.open_text(self.path) as file:
      while True:
        chunk = compression.read(file, _CHUNK_BYTES)
        is_last = len(chunk) < _CHUNK_BYTES
        yield chunk, is_last
        if is_last:
          return

  def _parsed(self, columns: Sequence[str]) -> Iterator[Lines]:
    """Yields all rows in order.

    Raises:
      UsageError: a row that is not well formed, by its line.
    """
    rest, line = b'', 1
    for chunk, is_last in self._chunks():
      raw = rest + chunk
      cut = len(raw) if is_last else raw.rfind(b'\n') + 1
      if line == 1 and cut:
        header, _, raw = raw.partition(b'\n')
        cut, line = max(cut - len(header) - 1, 0), 2
      if not cut:
        rest = raw
        continue
      text = csv_spaces.strip(raw[:cut], self._separator, is_last)
      frame, starts, used = csv_lines.parse(
        text, self.names, is_last, self._dialect
      )
      lines = csv_lines.split(raw[:cut])
      taken = len(lines)
      if used < len(text):
        taken = text[:used].count(b'\n')
      rest = b''.join(part + b'\n' for part in lines[taken:]) + raw[cut:]
      yield self._checked(frame, lines[:taken], starts, line)
      line += taken

  def _checked(
    self,
    frame: pl.DataFrame,
    lines: list[bytes],
    starts: np.ndarray | None,
    first: int,
  ) -> Lines:
    """Returns rows, all of them well formed."""
    is_bad = frame[csv_lines.EXTRA].fill_null('') != ''
    # A row with too few fields ends in a null, as one with an empty last field.
    suspect = frame[self.names[-1]].is_null() & ~is_bad
    at = np.arange(len(frame)) if starts is None else starts
    for row in suspect.arg_true().to_list():
      own = lines[at[row] : at[row + 1] if row + 1 < len(at) else len(lines)]
      is_bad[row] = self._width(own) != len(self.names)
    if is_bad.any():
      row = int(is_bad.arg_max() or 0)
      self._refuse(lines[at[row]], first + int(at[row]))
    if starts is not None:
      ends = [*at[1:], len(lines)]
      lines = [b'\n'.join(lines[i:j]) for i, j in zip(at, ends, strict=True)]
    text = pl.Series([line.decode() for line in lines], dtype=pl.String)
    fields = frame.drop(csv_lines.EXTRA).with_columns(
      pl.when(pl.all() != '').then(pl.all())
    )
    return Lines(text, fields, self._separator)

  def _width(self, lines: list[bytes]) -> int:
    if lines == [b''] or lines == [b'\r']:
      return 0
    try:
      return len(csv_lines.fields(lines, len(lines[0]) + 1, self._dialect))
    except ValueError:
      return 0

  def _refuse(self, line: bytes, number: int) -> None:
    reason = 'is not well formed'
    try:
      width = self._width([line])
      csv_lines.fields([line], width, self._dialect)
      reason = f'has {width} fields, the first line has {len(self.names)}'
    except ValueError as error:
      reason = f'is not well formed ({error})'
    shown = line.removesuffix(b'\r').decode(errors='replace')
    raise errors.UsageError(
      f'{self.path}: line {number} {reason}: {shown!r:.80}. Every row is to be'
      ' scored; mend the file.'
    )


def _part(rows: Lines, first: int, count: int | None = None) -> Lines:
  return Lines(
    rows.lines.slice(first, count),
    rows.fields.slice(first, count),
    rows.separator,
  )


def _joined(one: Lines, other: Lines) -> Lines:
  return Lines(
    pl.concat([one.lines, other.lines]),
    pl.concat([one.fields, other.fields]),
    other.separator,
  )
