"""Units of time stamps, told by their size.

Logs that hold plain numbers name no unit. Between the years 1973 and 2100 each
unit has numbers of its own.
"""

from __future__ import annotations

import numpy as np

PER_SECOND = {
  'seconds': 1,
  'milliseconds': 10**3,
  'microseconds': 10**6,
  'nanoseconds': 10**9,
}
NANOSECONDS = PER_SECOND['nanoseconds']
# These years, in seconds.
_MODERN = (100_000_000, 4_102_444_800)


def of_number(value: float) -> str | None:
  """Returns the unit in which a number is a time of these years, if any is."""
  for unit, scale in PER_SECOND.items():
    if _MODERN[0] * scale <= value < _MODERN[1] * scale:
      return unit
  return None


def counts(times: np.ndarray) -> dict[str, int]:
  """Returns unit -> how many times are of these years in it; no zeros.

  Args:
    times: [n], time stamps.
  """
  if not len(times):
    return {}
  first, last = int(times.min()), int(times.max())
  found: dict[str, int] = {}
  for unit, scale in PER_SECOND.items():
    low, high = (scale * end for end in _MODERN)
    if low <= first and last < high:
      return {unit: len(times)}
    if last >= low and first < high:
      count = int(((times >= low) & (times < high)).sum())
      found |= {unit: count} if count else {}
  return found


def of_times(times: np.ndarray, scale: int = 1) -> str | None:
  """Returns the unit of most times, where no other unit is among them.

  Args:
    times: int [n], time stamps.
    scale: the factor by which the log's own numbers were multiplied; the size
      of those numbers tells the unit.
  """
  found = counts(times // scale if scale > 1 else times)
  if len(found) == 1:
    unit, count = next(iter(found.items()))
    if 2 * count > len(times):
      return divided(unit, scale)
  return None


def divided(unit: str, parts: int) -> str | None:
  """Returns the unit of which there are `parts` in another, if it has a name.

  Args:
    unit: name of the larger unit, such as `seconds`.
    parts: a power of 1,000.
  """
  names = {factor: name for name, factor in PER_SECOND.items()}
  return names.get(PER_SECOND[unit] * parts)
