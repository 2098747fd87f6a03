"""What the readers of raw logs share: the file, its columns, the report.

Every reader yields Polars frames with the columns `user`, `item`, `category`,
`time` (as in `raw_times`), further fields, and `label` where the log has
impressions.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

import polars as pl

from dare_jax import errors
from dare_jax.logs import raw_times

MAX_EXAMPLES = 5  # of malformed rows


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
    time_unit: the unit of the times, a name in `time_units.PER_SECOND`, where
      the log holds dates; None where it holds numbers.
    time_scale: the factor by which fractional numbers were multiplied to become
      whole.
  """

  rows_read: int = 0
  rows_kept: int = 0
  malformed: int = 0
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)
  examples: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)
  time_unit: str | None = None
  time_scale: int = 1

  def drop(self, reason: str, count: int) -> None:
    if count:
      self.dropped[reason] = self.dropped.get(reason, 0) + count

  def add(self, part: RowReport, name: str) -> None:
    """Adds what happened to the rows of a file of that name."""
    self.rows_read += part.rows_read
    self.malformed += part.malformed
    for reason, count in part.dropped.items():
      self.drop(reason, count)
    free = max(0, MAX_EXAMPLES - len(self.examples))
    self.examples += [f'{name}, {text}' for text in part.examples[:free]]
    self.notes += part.notes

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Column:
  """One column of a raw log.

  Attributes:
    name: its name in the file (any name if the file has no header).
    kind: 'int' (0 or more), 'real_int' (any int64), 'str', 'id' (text or whole
      numbers), 'label' (0 or 1), 'time', or 'set' (text, or lists of Parquet).
    pattern: a regular expression that the whole text must match, or None.
    expected: what matches, in words, where `pattern` itself does not say it.
    required: False (for 'str' and 'set'): an empty field is the value '', not a
      fault.
    missing: texts that stand for a missing value. A row without a value that is
      required is left out for it; '' is such a text too, and a null.
    notation: how a column of kind 'time' is written, where it is text.
    separator: of kind 'set': between two members.
  """

  name: str
  kind: str = 'int'
  pattern: str | None = None
  expected: str | None = None
  required: bool = True
  missing: tuple[str, ...] = ()
  notation: raw_times.Notation | None = None
  separator: str = ''


def require_file(path: str | pathlib.Path | None, what: str) -> pathlib.Path:
  """Returns `path` if it is a readable, non-empty file.

  Raises:
    UsageError: no path given, no such file, a folder, or an empty file.
  """
  if not path:
    raise errors.UsageError(
      f'data.input is not set: expected the path of {what}; pass '
      '--input=PATH to prepare or --config.data.input=PATH to train.'
    )
  file = pathlib.Path(path).expanduser()
  if file.is_dir():
    raise errors.UsageError(f'data.input={path}: is a folder; expected {what}.')
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


def require_columns(
  path: pathlib.Path,
  names: Sequence[str],
  present: Sequence[str],
  hint: str = '',
) -> None:
  """Raises UsageError if a column named in the config is not there."""
  for name in names:
    if name not in present:
      raise errors.UsageError(
        f'{path}: no column {name!r}; it has {", ".join(present)}.{hint}'
        ' Name the columns with --config.data.columns.ROLE=NAME.'
      )


def checked(
  blocks: Iterable[pl.DataFrame],
  given: str | pathlib.Path,
  report: RowReport,
  max_malformed_share: float,
  if_empty: str = '',
) -> Iterator[pl.DataFrame]:
  """Yields all blocks of a log, and then checks what was read.

  Args:
    blocks: blocks of rows; reading them updates `report`.
    given: the log, as it was named.
    report: the counts of what was read.
    max_malformed_share: share of malformed rows above which it is refused.
    if_empty: what to do about rows that lack a value.

  Raises:
    UsageError: no row, or too many malformed.
  """
  yield from blocks
  if report.rows_read == 0:
    raise errors.UsageError(f'{given}: the log has no rows.')
  check_share(given, report, max_malformed_share, if_empty)


def counted(count: int, one: str, many: str) -> str:
  """Returns how many there are, in words.

  >>> counted(1, 'row has', 'rows have'), counted(1200, 'row has', 'rows have')
  ('1 row has', '1,200 rows have')
  """
  return f'{count:,} {one if count == 1 else many}'


def check_share(
  given: str | pathlib.Path,
  report: RowReport,
  max_malformed_share: float,
  if_empty: str = '',
) -> None:
  """Raises UsageError if too many of the rows read were malformed."""
  if report.malformed > max_malformed_share * report.rows_read:
    lack_values = any('(empty ' in text for text in report.examples)
    raise errors.UsageError(
      f'{given}: {report.malformed} of {report.rows_read} rows are malformed,'
      f' more than data.max_malformed_share={max_malformed_share:g} allows;'
      f' first: {"; ".join(report.examples[:3])}. Mend'
      f' the log or raise the limit.{if_empty if lack_values else ""}'
    )
