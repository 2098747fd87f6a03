"""Raw values that a user gives, in the type that the log has them in."""

from __future__ import annotations

from typing import Any

import polars as pl

from dare_jax.logs import plain_values


def as_known(field: str, raw: Any, known: pl.Series) -> pl.Series:
  """Returns raw values in the type of a log's, null where one is missing.

  Whole numbers and their decimal text are the same value, and so are floats
  that are whole. None, NaN and what pandas has for missing become null, as do
  whole numbers beyond 64 bits, which no log has.

  Args:
    field: the field of the values, for messages.
    raw: a list, tuple, array or series.
    known: distinct values of the log, integers or text.

  Raises:
    UsageError: no such sequence, or a value that cannot be one of the log's.

  >>> as_known('item', [5, 5.0, '5', None], pl.Series([7, 5])).to_list()
  [5, 5, 5, None]
  >>> as_known('item', [5, 5.0, '5', None], pl.Series(['5'])).to_list()
  ['5', '5', '5', None]
  """
  plain = plain_values.plain(field, raw)
  if known.dtype == pl.String:
    return _as_text(field, plain, known)
  found = plain_values.whole_numbers(field, plain)
  return pl.Series(found, dtype=pl.Int64).cast(known.dtype, strict=False)


def _as_text(
  field: str, values: list[plain_values.Plain], known: pl.Series
) -> pl.Series:
  """Returns values as the text of a log, whose numbers are text as well."""
  texts = [None if value is None else str(value) for value in values]
  # A log of floats has them with a point, be they whole or not.
  places = [
    place
    for place, value in enumerate(values)
    if isinstance(value, int | float) and abs(value) <= 2**53
  ]
  floats = pl.Series(
    [values[place] for place in places], dtype=pl.Float64, strict=False
  )
  written = floats.cast(pl.String).to_list()
  asked = pl.Series([*texts, *written], dtype=pl.String)
  there = {*known.filter(known.is_in(asked.implode()))}
  for place, text in zip(places, written, strict=True):
    if texts[place] not in there and text in there:
      texts[place] = text
    elif isinstance(values[place], float) and text not in there:
      raise plain_values.refusal(
        field, values[place], place, 'the log has no such number'
      )
  return pl.Series(texts, dtype=pl.String)
