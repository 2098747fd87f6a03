"""Raw values that a user gives, as plain numbers and text of Python.

The same id comes as an integer, as a float where pandas had to hold a missing
one, as text from a CSV file, or as a scalar of NumPy. All are the same value.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
import decimal
import numbers
import re
import sys
from typing import Any

import numpy as np

from dare_jax import errors

Plain = str | int | float | None
_WHOLE = re.compile(r'[+-]?\d+(\.0*)?')
# Up to where floats tell whole numbers apart.
_EXACT = {'float16': 2.0**11, 'float32': 2.0**24, 'float64': 2.0**53}
_INT64 = np.iinfo(np.int64)


class _Unfit(Exception):
  """A value that no log has."""


def plain(field: str, raw: Any) -> list[Plain]:
  """Returns values as text or numbers; a float only if it is not whole.

  None, NaN and what pandas has for missing become None.

  Args:
    field: the field of the values, for messages.
    raw: a list, tuple, array or series.

  Raises:
    UsageError: no such sequence, or a value that is neither.

  >>> plain('item', [5, 5.0, '5', float('nan')])
  [5, 5, '5', None]
  """
  values, exact = _values(field, raw)
  found = []
  for place, value in enumerate(values):
    try:
      found.append(_plain(value, exact))
    except _Unfit as error:
      raise refusal(field, value, place, error.args[0]) from None
  return found


def whole_numbers(field: str, values: Sequence[Plain]) -> list[int | None]:
  """Returns what `plain` gives as values of a log of whole numbers.

  None stands for whole numbers beyond 64 bits as well, which no log has.

  Raises:
    UsageError: other text, or a float.

  >>> whole_numbers('item', [5, '5', '5.0', None])
  [5, 5, 5, None]
  """
  found: list[int | None] = []
  for place, one in enumerate(values):
    number = _as_number(one)
    if isinstance(number, str | float):
      raise refusal(field, one, place, 'the log has whole numbers')
    is_there = number is not None and _INT64.min <= number <= _INT64.max
    found.append(number if is_there else None)
  return found


def refusal(field: str, value: Any, place: int, why: str) -> errors.UsageError:
  """Returns the error of a value that cannot be one of the log's."""
  return errors.UsageError(
    f'raw values of {field!r}: {value!r:.60} ({type(value).__name__}), number'
    f' {place + 1} of them: {why}; expected values as the log has them.'
  )


def _values(field: str, raw: Any) -> tuple[Sequence[Any], float]:
  """Returns the values, and up to where a float of them tells integers apart.

  Above 2^53 neighbours have the same float64: an id would be another's.
  """
  wrong = (
    f'raw values of {field!r}: {type(raw).__name__}: expected a list, an array'
    ' or a series of values, also for a single one.'
  )
  if isinstance(raw, str | bytes | Mapping | Set):
    raise errors.UsageError(wrong)
  dtype = getattr(raw, 'dtype', None)
  exact = _EXACT.get(str(dtype).lower(), _EXACT['float64'])
  if len(getattr(raw, 'shape', (0,))) != 1:
    raise errors.UsageError(f'{wrong} It has the shape {np.shape(raw)}.')
  if getattr(dtype, 'kind', '') in ('M', 'm'):
    raise errors.UsageError(
      f'raw values of {field!r}: {dtype}: expected numbers or text, as the log'
      ' has them.'
    )
  for name in ('tolist', 'to_pylist', 'to_list'):
    if hasattr(raw, name):
      return getattr(raw, name)(), exact
  try:
    return list(raw), exact
  except TypeError:
    raise errors.UsageError(wrong) from None


def _plain(value: Any, exact: float) -> Plain:
  """Returns a value as text or number; a float only if it is not whole.

  Raises:
    _Unfit: it is neither.
  """
  if value is None or value is np.ma.masked or _is_pandas_missing(value):
    return None
  if isinstance(value, bool | np.bool_):
    raise _Unfit('it is true or false, no id')
  if isinstance(value, str):
    return str(value)
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      raise _Unfit('it is not UTF-8') from None
  if isinstance(value, numbers.Integral):
    return int(value)
  if not isinstance(value, float | np.floating | decimal.Decimal):
    raise _Unfit('it is neither a number nor text')
  if value != value:
    return None
  if value in (float('inf'), -float('inf')):
    raise _Unfit('it is infinite')
  if value != int(value):
    return float(value)
  if isinstance(value, np.float16 | np.float32):
    exact = min(exact, _EXACT[value.dtype.name])
  if not isinstance(value, decimal.Decimal) and abs(float(value)) > exact:
    raise _Unfit('a float so large stands for several whole numbers')
  return int(value)


def _is_pandas_missing(value: Any) -> bool:
  pandas = sys.modules.get('pandas')
  return pandas is not None and (value is pandas.NA or value is pandas.NaT)


def _as_number(value: Plain) -> Plain:
  """Returns the number that a text stands for; other text as it is."""
  if not isinstance(value, str):
    return value
  text = value.strip()
  if not text:
    return None
  return int(text.partition('.')[0]) if _WHOLE.fullmatch(text) else value
