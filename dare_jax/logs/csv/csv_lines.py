"""Splits a block of CSV into rows of text, whatever quotes and bytes it holds.

A row is one line, or more where a quoted field holds line breaks. Quotes are
read as in RFC 4180: a field that opens with one ends with one, and holds it
twice for once; a quote within another field stands for itself. So does every
one where fields are separated by several bytes, as by `::`.

Polars reads whole blocks of regular lines. It takes a block without regard to
lines, so that one stray quote would change how those after it are read; lines
that are not regular are therefore read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import csv
import dataclasses

import numpy as np
import polars as pl

from dare_jax import errors

EXTRA = '_extra'  # not empty where a row has more fields, or is no row
MAX_ROW_LINES = 100  # A quote left open longer than this is a stray one.
_QUOTE, _RETURN, _BREAK = b'"\r\n'
# One that a block lacks stands for a separator of several bytes.
_CONTROLS = (*range(0x1F, 0x0D, -1), *range(0x01, 0x09))


@dataclasses.dataclass(frozen=True)
class Dialect:
  """How the fields of a line are told apart.

  Attributes:
    separator: one character or more between two fields.
  """

  separator: str = ','

  @property
  def has_quotes(self) -> bool:
    """Whether a field in quotes may hold separators and line breaks."""
    return len(self.separator.encode()) == 1


COMMAS = Dialect()


class _CutError(ValueError):
  """A row that may go on in lines not seen."""


def parse(
  block: bytes,
  names: Sequence[str],
  is_last: bool,
  dialect: Dialect = COMMAS,
) -> tuple[pl.DataFrame, np.ndarray | None, int]:
  """Reads a block as text.

  Args:
    block: whole lines; only the last one of a file may lack its line break.
    names: the names of the columns.
    is_last: whether no line follows.
    dialect: what separates the fields.

  Returns:
    One string column for each name, missing and empty fields null (an empty
      field in quotes may be ''), and `EXTRA`, empty in sound rows only;
    the line, from 0, at which each row starts, or None: a row is a line;
    the bytes read: a row that the block cuts in two is left for the next.
  """
  is_utf_8 = is_text(block)
  has_quotes = dialect.has_quotes and b'"' in block
  if is_utf_8 and not has_quotes:
    return _regular(block, names, dialect), None, len(block)
  if is_utf_8 and encloses_fields(block, dialect):
    frame = _regular(block, names, dialect)
    if len(frame) == num_lines(block):  # Else a row holds line breaks.
      return frame, None, len(block)
  lines = split(block)
  is_odd = np.zeros(len(lines), bool)
  if not is_utf_8:
    is_odd[:] = [not is_text(line) for line in lines]
  if has_quotes:
    is_odd[lines_with_odd_quotes(block, dialect)] = True
  return _mixed(lines, is_odd, names, is_last, dialect)


def fields(
  lines: Sequence[bytes], width: int, dialect: Dialect = COMMAS
) -> list[str]:
  """Returns the fields of one row.

  Args:
    lines: the lines of the file that make up the row.
    width: expected number of fields; empty ones beyond are dropped, as `parse`
      lets them pass.
    dialect: what separates the fields.

  Raises:
    ValueError: it is not well formed; says why.
  """
  row, used = _read(lines, width, dialect)
  if used < len(lines):
    raise ValueError('a line break outside quotes')
  return row


def num_lines(block: bytes) -> int:
  """Returns how many lines `split` gives."""
  return block.count(b'\n') + (block[-1:] not in (b'', b'\n'))


def split(block: bytes) -> list[bytes]:
  """Returns the lines of a block without their line breaks."""
  return block.removesuffix(b'\n').split(b'\n')


def num_fields(
  block: bytes, lines: pl.Series | np.ndarray, dialect: Dialect
) -> pl.Series:
  """Returns how many fields those lines have, all of them rows of their own."""
  text = pl.Series([block.decode(errors='replace')]).str.split('\n')
  found = text.explode()[lines]
  if dialect.has_quotes:
    found = found.str.replace_all('"[^"]*"', '')
  return found.str.count_matches(dialect.separator, literal=True) + 1


def is_text(data: bytes) -> bool:
  """Returns whether `data` is UTF-8."""
  if data.isascii():
    return True
  try:
    data.decode()
  except UnicodeDecodeError:
    return False
  return True


def _read(
  lines: Sequence[bytes], width: int, dialect: Dialect
) -> tuple[list[str], int]:
  """Returns the fields of the row that `lines` begin with, and its lines."""
  try:
    if dialect.has_quotes:
      reader = csv.reader(
        _texts(lines), strict=True, delimiter=dialect.separator
      )
      row = next(reader)
      used = reader.line_num
    else:
      line = lines[0].removesuffix(b'\r').decode()
      row, used = line.split(dialect.separator), 1
    return row if any(row[width:]) else row[:width], used
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


def row_at(
  lines: Sequence[bytes],
  at: int,
  width: int,
  is_last: bool,
  dialect: Dialect,
) -> tuple[list[str] | None, int]:
  """Returns the row that begins at a line of a block, and its lines.

  Args:
    lines: the lines of the block.
    at: the number of the line, from 0.
    width: expected number of fields.
    is_last: whether no line follows the block.
    dialect: what separates the fields.

  Returns:
    The fields, None where that line is no row of so many;
    how many lines the row is made of: 0 if the block cuts it, 1 if it is none.
  """
  window = lines[at : at + MAX_ROW_LINES]
  try:
    found, used = _read(window, width, dialect)
  except ValueError as error:
    is_cut = isinstance(error, _CutError) and not is_last
    return None, 0 if is_cut and len(window) < MAX_ROW_LINES else 1
  return (found, used) if len(found) == width else (None, 1)


def _texts(lines: Sequence[bytes]) -> Iterator[str]:
  for line in lines:
    yield line.decode() + '\n'


def encloses_fields(block: bytes, dialect: Dialect = COMMAS) -> bool:
  """Returns whether quotes enclose whole fields, which may hold line breaks."""
  data, quotes = _quotes(block)
  return bool(
    len(quotes) % 2 == 0
    and _is_edge(data[quotes[::2] - 1], dialect).all()
    and _ends_field(data, quotes[1::2], dialect).all()
  )


def lines_with_odd_quotes(block: bytes, dialect: Dialect) -> np.ndarray:
  """Returns the lines, from 0, in which quotes do not enclose whole fields."""
  data, quotes = _quotes(block)
  line = np.searchsorted(np.flatnonzero(data == _BREAK), quotes)
  opens = (np.arange(len(quotes)) - np.searchsorted(line, line)) % 2 == 0
  never_closed = opens & (line != np.append(line[1:], -1))
  is_odd = np.where(
    opens,
    ~_is_edge(data[quotes - 1], dialect) | never_closed,
    ~_ends_field(data, quotes, dialect),
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


def _is_edge(beside: np.ndarray, dialect: Dialect) -> np.ndarray:
  """Returns which bytes may stand beside a quote that opens or closes.

  One of them is the other quote, of two that stand for one.
  """
  separator = ord(dialect.separator)
  return (beside == separator) | (beside == _BREAK) | (beside == _QUOTE)


def _ends_field(
  data: np.ndarray, quotes: np.ndarray, dialect: Dialect
) -> np.ndarray:
  """Returns which quotes may end a field, by what follows them."""
  after = data[1:][quotes]
  found = _is_edge(after, dialect)
  windows = np.flatnonzero(after == _RETURN)
  found[windows] = data[quotes[windows] + 2] == _BREAK
  return found


def _mixed(
  lines: list[bytes],
  is_odd: np.ndarray,
  names: Sequence[str],
  is_last: bool,
  dialect: Dialect,
) -> tuple[pl.DataFrame, np.ndarray, int]:
  """As `parse`, for a block some lines of which must be read one by one."""
  single: list[tuple[int, list[str | None]]] = []  # (first line, fields)
  taken = np.zeros(len(lines), bool)
  end = 0
  for at in np.flatnonzero(is_odd).tolist():
    if at < end:
      continue
    found, used = row_at(lines, at, len(names), is_last, dialect)
    if not used:
      lines, taken = lines[:at], taken[:at]
      break
    end = at + used
    taken[at:end] = True
    row = [*[None] * len(names), 'no row'] if found is None else [*found, None]
    single.append((at, row))
  rest = [line for line, done in zip(lines, taken, strict=True) if not done]
  frames = [_regular(b''.join(line + b'\n' for line in rest), names, dialect)]
  schema = frames[0].schema
  frames.append(
    pl.DataFrame([row for _, row in single], schema=schema, orient='row')
  )
  starts = np.array([*np.flatnonzero(~taken), *(at for at, _ in single)])
  order = np.argsort(starts)
  used = sum(len(line) + 1 for line in lines)
  return pl.concat(frames)[order], starts[order], used


def _regular(
  block: bytes, names: Sequence[str], dialect: Dialect
) -> pl.DataFrame:
  separator = dialect.separator
  if not dialect.has_quotes:
    separator = _absent(block)
    block = block.replace(dialect.separator.encode(), separator.encode())
  has_quotes = dialect.has_quotes and b'"' in block
  frame = pl.read_csv(
    block,
    has_header=False,
    schema=dict.fromkeys([*names, EXTRA], pl.String),
    separator=separator,
    quote_char='"' if has_quotes else None,
    truncate_ragged_lines=True,
    extra_columns='ignore',
    missing_columns='insert',
    raise_if_empty=False,
  )
  longer = _longer_rows(frame, block, separator, has_quotes)
  if not len(longer):
    return frame
  is_longer = np.zeros(len(frame), bool)
  is_longer[longer] = True
  extra = pl.when(pl.Series(is_longer)).then(pl.lit('longer'))
  return frame.with_columns(extra.otherwise(pl.col(EXTRA)).alias(EXTRA))


def _longer_rows(
  frame: pl.DataFrame, block: bytes, separator: str, has_quotes: bool
) -> np.ndarray:
  """Returns the rows with a field, not empty, beyond the first too many.

  That one Polars has read as `EXTRA`; those after it, it has dropped.

  Args:
    frame: a block as Polars has read it, the column `EXTRA` the last.
    block: lines, each a row; or more lines than rows, of which none are found.
    separator: the one character between fields.
    has_quotes: whether there are fields in quotes.
  """
  width = frame.width - 1
  data = np.frombuffer(block, np.uint8)
  is_mark = data == ord(separator)
  has_enough = not frame[:, width - 1].null_count()
  if has_enough and np.count_nonzero(is_mark) == (width - 1) * len(frame):
    return np.zeros(0, np.int64)  # The usual case: no row has more fields.
  marks, ends = np.flatnonzero(is_mark), np.flatnonzero(data == _BREAK)
  if has_quotes:
    quotes = np.flatnonzero(data == _QUOTE)
    marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
  if not block.endswith(b'\n'):
    ends = np.append(ends, len(data))
  if len(ends) != len(frame):
    return np.zeros(0, np.int64)
  stop = np.searchsorted(marks, ends)
  count = np.diff(stop, prepend=0)
  found = np.flatnonzero(count > width)
  # The separators too many are all that is left of a line, if nothing is
  # between them.
  first = marks[stop[found] - count[found] + width - 1]
  end = ends[found] - (data[ends[found] - 1] == _RETURN)
  found = found[end - first > count[found] - width + 1]
  if has_quotes and len(found):  # Perhaps empty ones, in quotes.
    lines, dialect = split(block), Dialect(separator)
    rows = [_read([lines[row]], width, dialect)[0] for row in found]
    found = found[[len(row) > width for row in rows]]
  return found


def _absent(block: bytes) -> str:
  """Returns a control character that a block of text does not hold."""
  for control in _CONTROLS:
    if control not in block:
      return chr(control)
  raise errors.UsageError(
    'the log holds every control character in one block; expected text.'
  )
