"""Several values as one value of a field: a set, named by its members.

The name of a set has each member once, in alphabetical order, so that the same
members have the same name in any log, however they were written.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from dare_jax import errors
from dare_jax.logs import plain_values
from dare_jax.logs.values import number_ranges

if TYPE_CHECKING:
  import polars as pl

SEPARATOR = '|'
# A table of members is whole on every device, and all of its rows are looked at
# in each step; a set is summed member by member.
MOST_MEMBERS = 1 << 17  # of a field
MOST_IN_A_SET = 256


def label(value: Any, separator: str = SEPARATOR) -> str | None:
  """Returns the name of a set: its members, in order.

  >>> label('b|a|b'), label(['b', 'a']), label(''), label('7 | 10')
  ('a|b', 'a|b', '', '10|7')

  Args:
    value: members between separators, or a list of them. A text without any is
      a set of one, an empty one the empty set. None and NaN are missing: None.
    separator: between two members.

  Raises:
    UsageError: a member of a list that holds the separator.
  """
  if _is_list(value):
    plain = plain_values.plain('set', list(value))
    members = [str(member) for member in plain if member is not None]
    for member in members:
      if separator in member:
        raise errors.UsageError(
          f'a member of a set, {member!r:.60}, holds {separator!r}, which'
          ' stands between two of them.'
        )
  else:
    (only,) = plain_values.plain('set', [value])
    if only is None:
      return None
    members = str(only).split(separator)
  return separator.join(sorted({member.strip() for member in members} - {''}))


def labels(values: Iterable[Any], separator: str) -> list[str | None]:
  """Returns the name of each set."""
  return [label(value, separator) for value in values]


def of_series(values: pl.Series, separator: str) -> pl.Series:
  """Returns the same of a series of text or lists."""
  import polars as pl  # Bundles are read without it.

  if values.dtype.is_nested():
    names = labels(values.to_list(), separator)
    return pl.Series(values.name, names, dtype=pl.String)
  rename = lambda distinct: labels(distinct, separator)
  return number_ranges.renamed(values, rename)


def named(
  field: str, raw: Any, numbers: Iterable[str], sets: Mapping[str, str]
) -> Any:
  """Returns raw values under the names that a log has them by.

  Args:
    field: whose values they are.
    raw: a list, an array of NumPy, or a series of pandas or Polars.
    numbers: fields whose values are `number_ranges`.
    sets: field -> separator, of those whose values are sets.

  Raises:
    UsageError: no such sequence, or a value that no log could have.
  """
  if field in numbers:
    return number_ranges.labels(plain_values.plain(field, raw))
  if field not in sets:
    return raw
  given = raw.to_list() if hasattr(raw, 'to_list') else raw
  if isinstance(given, list | tuple) and any(map(_is_list, given)):
    return labels(given, sets[field])
  return labels(plain_values.plain(field, given), sets[field])


def _is_list(value: Any) -> bool:
  return isinstance(value, np.ndarray | list | tuple | set | frozenset)


def check(field: str, raw: pl.Series, separator: str) -> None:
  """Checks that a table of the members of a field is within bounds.

  Args:
    field: the name of the field.
    raw: distinct names of sets.
    separator: between two members.

  Raises:
    UsageError: a set, or the field, has too many members.
  """
  members = raw.str.split(separator)
  sizes = members.list.len()
  if (most := int(sizes.max() or 0)) > MOST_IN_A_SET:  # type: ignore[arg-type]
    row = int(sizes.arg_max() or 0)
    raise errors.UsageError(
      f'{field}: a set has {most:,} members ({raw[row]!r:.60}), and'
      f' {MOST_IN_A_SET} are the most that one may have; keep those that tell'
      ' most.'
    )
  if (count := members.explode().n_unique()) > MOST_MEMBERS:
    raise errors.UsageError(
      f'{field}: its sets are made of {count:,} members, and {MOST_MEMBERS:,}'
      ' are the most that a field may have, for the table of members is whole'
      ' on each device; keep the more frequent ones.'
    )
