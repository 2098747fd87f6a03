"""Rows of Parquet, with the types that they have there."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import io
import pathlib

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dare_jax import errors
from dare_jax.prediction import blocks

_READ_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True)
class TableRows:
  """Rows of a table of Arrow."""

  table: pa.Table

  def as_text(self, rows: np.ndarray | None, added: pl.DataFrame) -> bytes:
    """Returns lines of CSV, separated by commas.

    Raises:
      UsageError: a column that CSV has no way to write.
    """
    table = self.as_table(rows, added)
    for field in table.schema:
      if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
        raise errors.UsageError(
          f'--output: column {field.name!r} is of type {field.type}, which CSV'
          ' cannot hold; name the output *.parquet.'
        )
    text = io.BytesIO()
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.write_csv(text, include_header=False)
    return text.getvalue()

  def as_table(self, rows: np.ndarray | None, added: pl.DataFrame) -> pa.Table:
    """Returns rows in the types of the file, beside new columns.

    Args:
      rows: int [n], which rows; None: all.
      added: the new columns, [n].
    """
    table = self.table if rows is None else self.table.take(pa.array(rows))
    return blocks.with_columns(table, added)


class ParquetSource:
  """A Parquet file."""

  def __init__(self, path: pathlib.Path) -> None:
    """Opens a file.

    Raises:
      UsageError: it is no Parquet file.
    """
    self.path = path
    try:
      with pq.ParquetFile(path) as file:
        self._schema = file.schema_arrow
        self._rows = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
      raise _unreadable(path, error) from None
    self.names: Sequence[str] = self._schema.names
    for name in self.names:
      if self.names.count(name) > 1:
        raise errors.UsageError(
          f'{path}: two columns are named {name!r}; rename one.'
        )

  def num_rows(self) -> int:
    """Returns how many rows there are."""
    return self._rows

  def nothing(self) -> TableRows:
    """Returns an empty table with all columns."""
    return TableRows(self._schema.empty_table())

  def header_text(self, added: Sequence[str]) -> bytes:
    """Returns the names as a line of CSV."""
    empty = pl.DataFrame(schema=dict.fromkeys((*self.names, *added), pl.String))
    return empty.write_csv().encode()

  def read(
    self, size: int, wanted: range, columns: Sequence[str]
  ) -> Iterator[blocks.Block]:
    """Yields blocks, as `blocks.Source` says.

    Raises:
      UsageError: damaged data.
    """
    try:
      with pq.ParquetFile(self.path) as file:
        yield from self._blocks(file, size, wanted, columns)
    except (pa.ArrowException, OSError) as error:
      raise _unreadable(self.path, error) from None

  def _blocks(
    self,
    file: pq.ParquetFile,
    size: int,
    wanted: range,
    columns: Sequence[str],
  ) -> Iterator[blocks.Block]:
    first, stop = wanted.start * size, min(wanted.stop * size, self._rows)
    groups: list[int] = []
    begin = 0
    sizes = [
      file.metadata.row_group(group).num_rows
      for group in range(file.num_row_groups)
    ]
    for group, count in enumerate(sizes):  # No rows lie before the first block.
      if groups or begin + count > first:
        groups.append(group)
      else:
        begin += count
    held, skip, at = self._schema.empty_table(), first - begin, first
    for batch in file.iter_batches(_READ_ROWS, groups):
      part = pa.Table.from_batches([batch]).slice(min(skip, len(batch)))
      skip -= min(skip, len(batch))
      held = pa.concat_tables([held, part])
      while at < stop and len(held) >= min(size, stop - at):
        count = min(size, stop - at)
        table = held.slice(0, count)
        frame = pl.from_arrow(table.select(list(columns)))
        assert isinstance(frame, pl.DataFrame)
        yield blocks.Block(at // size, at, frame, TableRows(table))
        held, at = held.slice(count), at + count
      if at >= stop:
        return


def _unreadable(path: pathlib.Path, error: Exception) -> errors.UsageError:
  line = (str(error).splitlines() or [type(error).__name__])[0]
  return errors.UsageError(f'{path}: no readable Parquet file ({line}).')
