"""The input as it is read: its columns, and its rows block by block.

Blocks are the unit of everything: a part of the output, what a restart goes on
from, and what shards are made of. Where they lie depends on the input and on
their size alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from dare_jax import errors


class Rows(Protocol):
  """Rows as they came, to be written again with columns added."""

  def as_text(self, rows: np.ndarray | None, added: pl.DataFrame) -> bytes:
    """Returns lines of CSV.

    Args:
      rows: int, numbers of the rows, some of them several times; None: all
        rows, once.
      added: the columns to add, a row for each.
    """

  def as_table(self, rows: np.ndarray | None, added: pl.DataFrame) -> pa.Table:
    """Returns rows as a table of Arrow.

    Args:
      rows: int, numbers of the rows, some of them several times; None: all
        rows, once.
      added: the columns to add, a row for each.
    """


@dataclasses.dataclass(frozen=True)
class Block:
  """Some rows of an input, one after another.

  Attributes:
    number: the number of the block, from 0.
    first: the number of its first row, from 0.
    columns: the columns that are read, with the types of the file.
    rows: the rows with all their columns.
  """

  number: int
  first: int
  columns: pl.DataFrame
  rows: Rows

  def __len__(self) -> int:
    return len(self.columns)


class Source(Protocol):
  """A file of rows.

  Attributes:
    path: the path of the file.
    names: the names of its columns, in order.
  """

  path: pathlib.Path
  names: Sequence[str]

  def num_rows(self) -> int:
    """Returns how many rows there are; may have to read the whole file."""

  def read(
    self, size: int, wanted: range, columns: Sequence[str]
  ) -> Iterator[Block]:
    """Yields blocks in order.

    Args:
      size: rows of a block; the last may have fewer.
      wanted: numbers of the blocks.
      columns: names of the columns to be read.
    """

  def nothing(self) -> Rows:
    """Returns an empty table with all columns."""

  def header_text(self, added: Sequence[str]) -> bytes:
    """Returns the first line of CSV with these columns added."""


def one_file(flag: str, given: str) -> pathlib.Path:
  """Returns the path of a file that can be read.

  Args:
    flag: the flag that named the file, for messages.
    given: the path that the flag has.

  Raises:
    UsageError: there is none, or it is empty or no file.
  """
  path = pathlib.Path(given).expanduser()
  wrong = ''
  try:
    if path.is_dir():
      wrong = 'is a folder; give one file of it'
    elif not path.exists():
      wrong = 'no such file'
    elif not path.is_file():
      wrong = 'is no regular file; it is read more than once'
    elif not path.stat().st_size:
      wrong = 'is empty; expected at least a line with the names of the columns'
    else:
      path.open('rb').close()
  except OSError as error:
    wrong = f'cannot be read ({error.strerror})'
  if wrong:
    raise errors.UsageError(f'--{flag}={given}: {wrong}.')
  return path


def rendered(added: pl.DataFrame, separator: str) -> list[pl.Expr]:
  """Returns the columns as fields of CSV, in quotes where they need these."""
  fields = []
  for name in added.columns:
    text = pl.col(name).cast(pl.String)
    if added[name].dtype == pl.String:
      quoted = pl.concat_str(
        pl.lit('"'), text.str.replace_all('"', '""', literal=True), pl.lit('"')
      )
      needs_quotes = text.str.contains('["\\r\\n]') | text.str.contains(
        separator, literal=True
      )
      text = pl.when(needs_quotes).then(quoted).otherwise(text)
    fields.append(text.fill_null(''))
  return fields


def with_columns(table: pa.Table, added: pl.DataFrame) -> pa.Table:
  """Returns a table with columns added."""
  new = added.to_arrow(compat_level=pl.CompatLevel.oldest())
  for name in added.columns:
    table = table.append_column(name, new[name])
  return table
