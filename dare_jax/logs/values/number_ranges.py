"""Numbers as values of a field: ranges that grow with the number.

A range is named by its edges, so that the raw values of a field record them.
Ranges do not depend on the log: the same number has the same name in any.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import math
from typing import Any
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import polars as pl

PER_DOUBLING = 2
Value = str | int | float | None


def label(value: Value) -> str | None:
  """Returns the name of a number's range, two of them to a doubling.

  >>> label(3.5), label('4'), label(-1), label(0)
  ('2.828 to 4', '4 to 5.657', '-1.414 to -1', '0')

  Args:
    value: a number, or its text. Other text is a value of its own, and so is
      the name of a range. None and NaN are missing: None.
  """
  if value is None:
    return None
  try:
    number = float(value)
  except ValueError:
    return str(value)
  if math.isnan(number):
    return None
  if number == 0 or math.isinf(number):
    return f'{number:g}'.replace('-0', '0')
  step = math.floor(PER_DOUBLING * math.log2(abs(number)))
  low, high = (
    f'{math.exp2(edge / PER_DOUBLING):.4g}' for edge in (step, step + 1)
  )
  return f'{low} to {high}' if number > 0 else f'-{high} to -{low}'


def labels(values: Iterable[Value]) -> list[str | None]:
  """Returns the name of each number's range."""
  return [label(value) for value in values]


def of_series(values: pl.Series) -> pl.Series:
  """Returns the name of the range of each number of a series, or text."""
  return renamed(values, labels)


def renamed(
  values: pl.Series, rename: Callable[[list[Any]], list[str | None]]
) -> pl.Series:
  """Returns other names of values, each distinct one of which is named once.

  Args:
    values: a series.
    rename: gives the names of values.
  """
  import polars as pl  # Bundles are read without Polars.

  distinct = values.unique()
  named = pl.Series(rename(distinct.to_list()), dtype=pl.String)
  pairs = pl.DataFrame({'raw': distinct, 'label': named})
  frame = values.alias('raw').to_frame()
  joined = frame.join(
    pairs, on='raw', how='left', nulls_equal=True, maintain_order='left'
  )
  return joined['label'].alias(values.name)
