"""What separates the fields of a text file, and what its first line names."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
import pathlib
import re

from dare_jax import errors
from dare_jax.logs.csv import csv_lines
from dare_jax.logs.csv import csv_spaces

# Comma first: where several would do, it is the one.
_CANDIDATES = (',', '\t', ';', '|', '::', '\x01')
_FIRST_ROWS = 10
_SPELLED = re.compile(r'\\(t|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})')
# RecBole's atomic files: `user_id:token`.
_TYPED = re.compile(r'(.+):(token|float|token_seq|float_seq)')
_SHOWN_NAMES = {
  ',': 'commas',
  ';': 'semicolons',
  '\t': 'tabs',
  '|': 'bars |',
  '::': 'double colons ::',
}


def separator(given: str) -> str:
  """Returns the separator that `data.columns.separator` asks for.

  Args:
    given: one or more characters; also `tab`, `\\t`, `\\x01`.

  Raises:
    UsageError: characters that fields or lines need.
  """
  text = '\t' if given.lower() == 'tab' else given
  if _SPELLED.fullmatch(text):
    text = text.encode().decode('unicode_escape')
  if not text or re.search(r'[\w"\r\n]', text):
    raise errors.UsageError(
      f'data.columns.separator={given!r}: expected what stands between the'
      " fields of a line, such as ';', '|', '::' or 'tab'; no letters, digits,"
      ' quotes or line breaks.'
    )
  return text


def hint(fields: Sequence[str], used: str) -> str:
  """Returns what to add to an error if another separator seems to be used.

  Args:
    fields: the fields of the first line, as they were separated.
    used: the separator that they were separated by.
  """
  for candidate in _CANDIDATES:
    count = sum(field.count(candidate) for field in fields)
    if candidate != used and count >= max(1, len(fields)):
      return (
        f' Fields must be separated by {_shown(used)}; line 1 has'
        f' {len(fields) - 1} {_shown(used)} and {count} {_shown(candidate)}.'
      )
  if not any(fields):
    return ' Line 1 is empty; take it out.'
  if len(fields) == 1:
    return (
      f' Line 1 has no {_shown(used)}; if something else stands between its'
      ' fields, say what with --config.data.columns.separator=SEPARATOR.'
    )
  return '' if used == ',' else f' Fields are separated by {_shown(used)}.'


def _shown(separator: str) -> str:
  return _SHOWN_NAMES.get(separator) or repr(separator)


def names(fields: Sequence[str]) -> list[str]:
  """Returns the names of a header's fields, without RecBole's types."""
  typed = [_TYPED.fullmatch(field) for field in fields]
  return [match[1] for match in typed if match] if all(typed) else [*fields]


def require_single_values(
  path: pathlib.Path, fields: Sequence[str], needed: Collection[str]
) -> None:
  """Refuses needed columns that hold several values, as their types say.

  Raises:
    UsageError: such a column.
  """
  for field, name in zip(fields, names(fields), strict=True):
    if name in needed and name != field and field.endswith('_seq'):
      raise errors.UsageError(
        f'{path}: column {field!r} holds several values in a row; a field has'
        ' one value for each behavior. Keep one of them, the first, say, in'
        ' a column of its own, and name that; or, as a further field, name it'
        " in data.columns.sets, with data.columns.set_separator=' '."
      )


def find(
  path: pathlib.Path,
  head: bytes,
  needed: Collection[str],
  num_columns: int | None,
) -> str:
  """Returns the separator of a file, where it is plain what it is.

  That is where it alone gives the needed columns; commas, where they do. If
  none does, the one that gives the most columns: what is wrong is best said
  with these.

  Args:
    path: the path of the file, for messages.
    head: the beginning of the file.
    needed: names of columns that must be there.
    num_columns: number of columns of a file without header; None: line one
      names them.

  Raises:
    UsageError: several separators give the needed columns.
  """
  lines = [line.removesuffix(b'\r') for line in head.split(b'\n')]
  if len(lines) > 1:
    lines.pop()  # Empty, or cut.
  lines = lines[:_FIRST_ROWS]
  width, fitting = {}, []
  for candidate in _CANDIDATES:
    rows = _rows(lines, candidate, num_columns)
    width[candidate] = len(rows[0])
    if num_columns is None:
      is_fit = set(needed) <= set(names(rows[0]))
    else:
      alike = sum(len(row) == num_columns for row in rows)
      is_fit = len(rows[0]) == num_columns and 2 * alike > len(rows)
    if is_fit:
      fitting.append(candidate)
  if len(fitting) > 1 and ',' not in fitting:
    raise errors.UsageError(
      f'{path}: fields may be separated by'
      f' {" or ".join(_shown(found) for found in fitting)}; say by which with'
      ' --config.data.columns.separator=SEPARATOR.'
    )
  return fitting[0] if fitting else max(_CANDIDATES, key=width.__getitem__)


def _rows(
  lines: Sequence[bytes], candidate: str, num_columns: int | None
) -> list[list[str]]:
  """Returns the fields of lines, none of one that is not well formed."""
  dialect = csv_lines.Dialect(candidate)
  rows = []
  for line in lines:
    try:
      stripped = csv_spaces.strip(line, candidate)
      row = csv_lines.fields([stripped], num_columns or len(line), dialect)
    except ValueError:
      row = []
    rows.append([field.strip() for field in row])
  return rows
