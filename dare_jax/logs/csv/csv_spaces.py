"""Takes away the spaces around the fields of a block of CSV.

Spaces beside a separator or a line's ends mean nothing, whether the field is
in quotes or not; those within quotes, or between words, do.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dare_jax.logs.csv import csv_lines

_BLANKS = b' \t'
_QUOTE, _RETURN, _BREAK = b'"\r\n'


def strip(
  block: bytes,
  separator: str = ',',
  is_last: bool = True,
  width: int | None = None,
) -> bytes:
  """Returns a block of whole lines without spaces and tabs around fields.

  Args:
    block: its first line begins a row.
    separator: the text between two fields; where it has several bytes, quotes
      have no meaning.
    is_last: whether no line follows. If one does, the block may cut a field in
      quotes, the spaces of which stay.
    width: number of fields of a row; None: each line is a row.
  """
  mark = separator.encode()
  kinds = [blank for blank in _BLANKS if blank not in mark]
  # Most logs have no such spaces, which one fast pass shows.
  if separator == ' ' or not any(blank in block for blank in kinds):
    return block
  data = np.frombuffer(block, np.uint8)
  is_blank = np.zeros(len(data), bool)
  for blank in kinds:
    is_blank |= data == blank
  first, stop = _runs(np.flatnonzero(is_blank))
  outer = _follows_edge(data, first, mark) | _precedes_edge(data, stop, mark)
  first, stop = first[outer], stop[outer]
  if not len(first):
    return block
  if len(mark) > 1 or _QUOTE not in block:
    return _without(data, first, stop)
  quotes = np.flatnonzero(data == _QUOTE)
  blanks = _Blanks(data, first, stop, np.searchsorted(quotes, first))
  stripped = blanks.without(0)
  is_cut = not is_last and _may_be_cut(data, quotes)
  whole = stripped + b'"' if is_cut else stripped
  dialect = csv_lines.Dialect(separator)
  if csv_lines.encloses_fields(whole, dialect):
    return stripped
  # A stray quote must not change other rows, so each row is read by itself.
  return _of_rows(blanks, quotes, dialect, is_last, width)


def _of_rows(
  blanks: _Blanks,
  quotes: np.ndarray,
  dialect: csv_lines.Dialect,
  is_last: bool,
  width: int | None,
) -> bytes:
  """As `strip`, for a block in which quotes do not enclose whole fields.

  Args:
    blanks: the spaces and tabs of the block.
    quotes: int [quotes], the places of the quotes in the block.
    dialect: what separates the fields.
    is_last: whether no line follows the block.
    width: number of fields of a row; None: each line is a row.
  """
  data = blanks.data
  begins = np.append(0, np.flatnonzero(data == _BREAK) + 1)
  line = np.searchsorted(begins, blanks.first, side='right') - 1
  quotes_before = np.searchsorted(quotes, begins)
  stripped = blanks.without(quotes_before[line])
  if width is None:
    return stripped
  row = np.arange(len(begins))  # The line at which the row of a line begins.
  for at in csv_lines.lines_with_odd_quotes(stripped, dialect).tolist():
    if row[at] < at:
      continue
    # As the lines that follow are, should they belong to this row.
    stop_line = min(at + csv_lines.MAX_ROW_LINES, len(begins))
    end = begins[stop_line] if stop_line < len(begins) else len(data)
    of_window = blanks.between(begins[at], end)
    lines = csv_lines.split(of_window.without(quotes_before[at]))
    _, used = csv_lines.row_at(lines, 0, width, is_last, dialect)
    row[at : at + (used or len(row))] = at
  return blanks.without(quotes_before[row[line]])


@dataclasses.dataclass(frozen=True)
class _Blanks:
  """Blanks beside separators and line breaks, in quotes or not.

  Attributes:
    data: uint8 [bytes], a block.
    first: int [blanks], the place at which a run of blanks begins.
    stop: int [blanks], the place behind its end.
    quotes: int [blanks], number of quotes in the block before the run.
  """

  data: np.ndarray
  first: np.ndarray
  stop: np.ndarray
  quotes: np.ndarray

  def without(self, quotes_before: int | np.ndarray) -> bytes:
    """Returns the data without the blanks that are not in quotes.

    Args:
      quotes_before: how many quotes of the block come before the row of each
        blank, int [blanks], or before that of all.
    """
    outside = (self.quotes - quotes_before) % 2 == 0
    return _without(self.data, self.first[outside], self.stop[outside])

  def between(self, begin: int, end: int) -> _Blanks:
    """Returns the part from one byte to another, both where lines begin."""
    own = slice(*np.searchsorted(self.first, [begin, end]))
    return _Blanks(
      self.data[begin:end],
      self.first[own] - begin,
      self.stop[own] - begin,
      self.quotes[own],
    )


def _may_be_cut(data: np.ndarray, quotes: np.ndarray) -> bool:
  """Returns whether the last quote may be closed after the block."""
  lines = int(np.count_nonzero(data[quotes[-1] :] == _BREAK))
  return len(quotes) % 2 == 1 and lines < csv_lines.MAX_ROW_LINES


def _runs(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns where runs of successive positions begin and end."""
  new = np.flatnonzero(np.diff(positions) != 1) + 1
  first = positions[np.append(0, new)] if len(positions) else positions
  stop = positions[np.append(new, len(positions)) - 1] + 1
  return first, stop if len(positions) else positions


def _follows_edge(data: np.ndarray, at: np.ndarray, mark: bytes) -> np.ndarray:
  """Returns whether a field begins at a position, but for spaces."""
  after_mark = at >= len(mark)
  for back, byte in enumerate(reversed(mark), 1):
    after_mark &= data[np.maximum(at - back, 0)] == byte
  return after_mark | (at == 0) | (data[np.maximum(at - 1, 0)] == _BREAK)


def _precedes_edge(data: np.ndarray, at: np.ndarray, mark: bytes) -> np.ndarray:
  """Returns whether a field ends at a position, but for spaces."""
  last = len(data) - 1
  before_mark = at + len(mark) <= len(data)
  for offset, byte in enumerate(mark):
    before_mark &= data[np.minimum(at + offset, last)] == byte
  after = data[np.minimum(at, last)]
  is_end = (at > last) | (after == _BREAK) | (after == _RETURN)
  return before_mark | is_end


def _without(data: np.ndarray, first: np.ndarray, stop: np.ndarray) -> bytes:
  steps = np.zeros(len(data) + 1, np.int8)
  steps[first] += 1
  steps[stop] -= 1
  return data[np.cumsum(steps[:-1], dtype=np.int8) == 0].tobytes()
