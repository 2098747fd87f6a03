"""From raw values of a column to ids, many at once."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.logs import given_values
from dare_jax.logs import id_map
from dare_jax.logs.values import set_values


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a block.

  Attributes:
    values: series of the values, with the type of the file.
    name: the name of the column.
    path: the path of the file.
    first: number of the first row, from 0 on.
  """

  values: pl.Series
  name: str
  path: pathlib.Path
  first: int = 0

  def refused(self, row: int, reason: str) -> errors.UsageError:
    """Returns what to say of a value that is none."""
    value = self.values[row]
    shown = '' if value is None else f' {value!r:.60}:'
    return errors.UsageError(
      f'{self.path}: column {self.name!r}, row {self.first + row + 1}:{shown}'
      f' {reason}.'
    )


def plain(
  values: pl.Series, missing: Sequence[str] = (), if_empty: str | None = None
) -> pl.Series:
  """Returns values as numbers or text; null where one is missing.

  Args:
    values: series of values of any type that a file can hold.
    missing: texts that stand for a missing value, besides the empty one.
    if_empty: the value of a missing one; None: null.
  """
  kind = values.dtype
  if kind.is_temporal() or kind in (pl.Boolean, pl.Categorical, pl.Enum):
    values = values.cast(pl.String)
  if kind == pl.Null:
    values = values.cast(pl.String)
  if values.dtype.is_float():
    values = values.fill_nan(None)
  if values.dtype == pl.String:
    absent = values.is_in(['', *missing]).fill_null(True)
    values = values.set(absent, if_empty)
  return values


def of_sets(column: Column, separator: str | None) -> Column:
  """Returns a column with the names of sets.

  Args:
    column: text or lists, as `plain` gives them.
    separator: between two members in text; None: it holds no sets.

  Raises:
    UsageError: a member that holds the separator, by its row.
  """
  if separator is None:
    return column
  try:
    values = set_values.of_series(column.values, separator)
  except errors.UsageError:
    for row, value in enumerate(column.values):
      try:
        set_values.label(value, separator)
      except errors.UsageError as error:
        reason = str(error).rstrip('.')
        raise column.refused(row, reason) from None
    raise
  return dataclasses.replace(column, values=values)


class RawIds:
  """Ids of a log's raw values: `id_map.UNKNOWN` for others and missing ones.

  5, 5.0 and the text '5' are the same value.
  """

  def __init__(self, field: str, known: pl.Series) -> None:
    """Makes it.

    Args:
      field: the field of the values.
      known: series of distinct raw values; position i has the id i + 2.
    """
    self._field = field
    self.known = known

  def __call__(self, column: Column) -> np.ndarray:
    """Returns the ids of the values, int64 [n].

    Args:
      column: values as `plain` gives them.

    Raises:
      UsageError: a value that cannot be one of the log's, by its row.
    """
    raw, known = column.values, self.known
    asked = raw
    if _is_exact(raw.dtype, known.dtype):
      asked = raw.cast(known.dtype, strict=False)
    if asked.dtype == known.dtype:
      found = id_map.lookup(known, asked)
    else:
      found = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(raw))
    left = found.is_null() & raw.is_not_null()
    if raw.dtype != known.dtype and left.any():
      rest = dataclasses.replace(column, values=raw.set(~left, None))
      slow = of_distinct(rest, self._as_known)
      found = pl.select(pl.coalesce(found, slow)).to_series()
    return found.fill_null(id_map.UNKNOWN).to_numpy()

  def _as_known(self, raw: pl.Series) -> pl.Series:
    values = given_values.as_known(self._field, raw, self.known)
    return id_map.lookup(self.known, values)


def of_distinct(
  column: Column, look_up: Callable[[pl.Series], pl.Series]
) -> pl.Series:
  """Returns the ids of a column, each of its values looked up once.

  Args:
    column: values as `plain` gives them; null stays null.
    look_up: returns, for a series of raw values, the series of their ids.

  Raises:
    UsageError: `look_up` refuses a value; names its row.
  """
  raw = column.values.alias('raw')
  distinct = raw.drop_nulls().unique(maintain_order=True)
  try:
    ids = look_up(distinct)
  except errors.UsageError:
    _refuse_first(column, distinct, look_up)
    raise
  pairs = pl.DataFrame({'raw': distinct, 'id': ids.cast(pl.Int64)})
  joined = raw.to_frame().join(
    pairs, on='raw', how='left', maintain_order='left'
  )
  return joined['id']


def _refuse_first(
  column: Column, distinct: pl.Series, look_up: Callable[[pl.Series], pl.Series]
) -> None:
  """Raises UsageError for the first value that is refused by itself."""
  for place in range(len(distinct)):
    one = distinct.slice(place, 1)
    try:
      look_up(one)
    except errors.UsageError as error:
      row = int((column.values == one[0]).arg_max() or 0)
      reason = str(error).partition('of them: ')[2].rstrip('.')
      raise column.refused(row, reason) from None


def _is_exact(asked: pl.DataType, known: pl.DataType) -> bool:
  """Whether a cast finds most values, all of them between whole numbers."""
  if asked.is_integer():
    return known.is_integer() or known == pl.String
  return asked == pl.String and known.is_integer()
