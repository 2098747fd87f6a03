"""Splits a block of CSV into rows of text, whatever quotes and bytes it holds.

A row is one line, or more where a quoted field holds line breaks. Quotes are
read as in RFC 4180: a field that opens with one ends with one, and holds it
twice for once; a quote within another field stands for itself.

Polars reads whole blocks of regular lines. It takes a block without regard to
lines, so that one stray quote would change how those after it are read; lines
that are not regular are therefore read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import csv

import numpy as np
import polars as pl

EXTRA = '_extra'  # not empty where a row has more fields, or is no row
_MAX_ROW_LINES = 100  # A quote left open longer than this is a stray one.
_QUOTE, _COMMA, _RETURN, _BREAK = b'",\r\n'


class _CutError(ValueError):
  """A row that may go on in lines not seen."""


def parse(
  block: bytes, names: Sequence[str], is_last: bool
) -> tuple[pl.DataFrame, np.ndarray | None, int]:
  """Reads a block as text.

  Args:
    block: whole lines; only the last one of a file may lack its line break.
    names: of the columns.
    is_last: whether no line follows.

  Returns:
    One string column for each name, missing and empty fields null (an empty
      field in quotes may be ''), and `EXTRA`, empty in sound rows only;
    the line, from 0, at which each row starts, or None: a row is a line;
    the bytes read: a row that the block cuts in two is left for the next.
  """
  is_utf_8 = is_text(block)
  if is_utf_8 and b'"' not in block:
    return _regular(block, names), None, len(block)
  if is_utf_8 and encloses_fields(block):
    frame = _regular(block, names)
    if len(frame) == num_lines(block):  # Else a row holds line breaks.
      return frame, None, len(block)
  lines = split(block)
  is_odd = np.zeros(len(lines), bool)
  if not is_utf_8:
    is_odd[:] = [not is_text(line) for line in lines]
  is_odd[_lines_with_odd_quotes(block)] = True
  return _mixed(lines, is_odd, names, is_last)


def fields(lines: Sequence[bytes], width: int) -> list[str]:
  """Returns the fields of one row.

  Args:
    lines: those that the row is made of.
    width: expected number of fields; empty ones beyond are dropped, as `parse`
      lets them pass.

  Raises:
    ValueError: it is not well formed; says why.
  """
  row, used = _read(lines, width)
  if used < len(lines):
    raise ValueError('a line break outside quotes')
  return row


def num_lines(block: bytes) -> int:
  """Returns how many lines `split` gives."""
  return block.count(b'\n') + (block[-1:] not in (b'', b'\n'))


def split(block: bytes) -> list[bytes]:
  """Returns the lines of a block without their line breaks."""
  return block.removesuffix(b'\n').split(b'\n')


def is_text(data: bytes) -> bool:
  """Returns whether `data` is UTF-8."""
  if data.isascii():
    return True
  try:
    data.decode()
  except UnicodeDecodeError:
    return False
  return True


def _read(lines: Sequence[bytes], width: int) -> tuple[list[str], int]:
  """Returns the fields of the row that `lines` begin with, and its lines."""
  reader = csv.reader(_texts(lines), strict=True)
  try:
    row = next(reader)
    return row if any(row[width:]) else row[:width], reader.line_num
  except UnicodeDecodeError:
    reason = 'not UTF-8 text; convert the file to UTF-8'
  except csv.Error as error:
    reason = str(error)
    if b'"' in lines[0]:
      reason = (
        'a field that opens with a quote must end with one, and hold it twice'
        ' for once'
      )
    if reader.line_num == len(lines):
      raise _CutError(reason) from None
  raise ValueError(reason)


def _texts(lines: Sequence[bytes]) -> Iterator[str]:
  for line in lines:
    yield line.decode() + '\n'


def encloses_fields(block: bytes) -> bool:
  """Returns whether quotes enclose whole fields, which may hold line breaks."""
  data, quotes = _quotes(block)
  return bool(
    len(quotes) % 2 == 0
    and _is_edge(data[quotes[::2] - 1]).all()
    and _ends_field(data, quotes[1::2]).all()
  )


def _lines_with_odd_quotes(block: bytes) -> np.ndarray:
  """Returns the lines, from 0, in which quotes do not enclose whole fields."""
  data, quotes = _quotes(block)
  line = np.searchsorted(np.flatnonzero(data == _BREAK), quotes)
  opens = (np.arange(len(quotes)) - np.searchsorted(line, line)) % 2 == 0
  never_closed = opens & (line != np.append(line[1:], -1))
  is_odd = np.where(
    opens,
    ~_is_edge(data[quotes - 1]) | never_closed,
    ~_ends_field(data, quotes),
  )
  return np.unique(line[is_odd])


def _quotes(block: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Returns the bytes, a line break the last, and the positions of quotes.

  The first byte thus comes after a line break, if seen as at -1.
  """
  if not block.endswith(b'\n'):
    block += b'\n'
  data = np.frombuffer(block, np.uint8)
  return data, np.flatnonzero(data == _QUOTE)


def _is_edge(beside: np.ndarray) -> np.ndarray:
  """Returns which bytes may stand beside a quote that opens or closes.

  One of them is the other quote, of two that stand for one.
  """
  return (beside == _COMMA) | (beside == _BREAK) | (beside == _QUOTE)


def _ends_field(data: np.ndarray, quotes: np.ndarray) -> np.ndarray:
  """Returns which quotes may end a field, by what follows them."""
  after = data[1:][quotes]
  found = _is_edge(after)
  windows = np.flatnonzero(after == _RETURN)
  found[windows] = data[quotes[windows] + 2] == _BREAK
  return found


def _mixed(
  lines: list[bytes], is_odd: np.ndarray, names: Sequence[str], is_last: bool
) -> tuple[pl.DataFrame, np.ndarray, int]:
  """As `parse`, for a block some lines of which must be read one by one."""
  single: list[tuple[int, list[str | None]]] = []  # (first line, fields)
  taken = np.zeros(len(lines), bool)
  end = 0
  for at in np.flatnonzero(is_odd).tolist():
    if at < end:
      continue
    window = lines[at : at + _MAX_ROW_LINES]
    row: list[str | None] = [*[None] * len(names), 'no row']
    end = at + 1
    try:
      found, used = _read(window, len(names))
    except ValueError as error:
      found, used = [], 1
      is_cut = isinstance(error, _CutError) and not is_last
      if is_cut and len(window) < _MAX_ROW_LINES:
        lines, taken = lines[:at], taken[:at]
        break
    if len(found) == len(names):
      row = [*found, None]
      end = at + used
    taken[at:end] = True
    single.append((at, row))
  rest = [line for line, done in zip(lines, taken, strict=True) if not done]
  frames = [_regular(b''.join(line + b'\n' for line in rest), names)]
  schema = frames[0].schema
  frames.append(
    pl.DataFrame([row for _, row in single], schema=schema, orient='row')
  )
  starts = np.array([*np.flatnonzero(~taken), *(at for at, _ in single)])
  order = np.argsort(starts)
  used = sum(len(line) + 1 for line in lines)
  return pl.concat(frames)[order], starts[order], used


def _regular(block: bytes, names: Sequence[str]) -> pl.DataFrame:
  return pl.read_csv(
    block,
    has_header=False,
    schema=dict.fromkeys([*names, EXTRA], pl.String),
    quote_char='"' if b'"' in block else None,
    truncate_ragged_lines=True,
    missing_columns='insert',
    raise_if_empty=False,
  )
