"""Takes away the spaces around the fields of a block of CSV.

Spaces beside a separator or a line's ends mean nothing, whether the field is
in quotes or not; those within quotes, or between words, do.
"""

from __future__ import annotations

import numpy as np

from dare_jax.logs.csv import csv_lines

_BLANKS = b' \t'
_QUOTE, _RETURN, _BREAK = b'"\r\n'


def strip(block: bytes, separator: str = ',', is_last: bool = True) -> bytes:
  """Returns a block of whole lines without spaces and tabs around fields.

  Args:
    block: its first line begins a row.
    separator: between fields; if it is of several bytes, quotes mean nothing.
    is_last: whether no line follows. If one does, the block may cut a field in
      quotes, the spaces of which stay.
  """
  mark = separator.encode()
  blanks = [blank for blank in _BLANKS if blank not in mark]
  # Most logs have none, which is seen at the speed of memory.
  if separator == ' ' or not any(blank in block for blank in blanks):
    return block
  data = np.frombuffer(block, np.uint8)
  is_blank = np.zeros(len(data), bool)
  for blank in blanks:
    is_blank |= data == blank
  first, stop = _runs(np.flatnonzero(is_blank))
  outer = _follows_edge(data, first, mark) | _precedes_edge(data, stop, mark)
  first, stop = first[outer], stop[outer]
  if not len(first):
    return block
  if len(mark) > 1 or _QUOTE not in block:
    return _without(data, first, stop)
  quotes = np.flatnonzero(data == _QUOTE)
  before = np.searchsorted(quotes, first)
  outside = before % 2 == 0
  stripped = _without(data, first[outside], stop[outside])
  is_cut = not is_last and _may_be_cut(data, quotes)
  whole = stripped + b'"' if is_cut else stripped
  if csv_lines.encloses_fields(whole, csv_lines.Dialect(separator)):
    return stripped
  # A stray quote is to change no other line: each is read by itself.
  breaks = np.flatnonzero(data == _BREAK)
  line = np.searchsorted(breaks, first)
  begin = np.append(0, breaks + 1)[line]
  outside = (before - np.searchsorted(quotes, begin)) % 2 == 0
  return _without(data, first[outside], stop[outside])


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
