"""Times as a log has them, and as a model with real time reads them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import pathlib
import re
import time
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.bundle import manifest as manifest_lib
from dare_jax.logs import iso_dates
from dare_jax.logs import time_units

_LARGEST = 2**62
_WHOLE = r'\s*[-+]?[0-9]{1,18}\s*'
_INT32 = np.iinfo(np.int32)


@dataclasses.dataclass(frozen=True)
class Times:
  """Reads the times of a log.

  A tick is the least that the log tells apart. A time between two ticks is the
  later one, as in bulk scores.

  Attributes:
    unit: what a number of the log counts since 1970, such as `seconds`.
    scale: ticks in 1 of that.
    origin: what a model's times count from: a Monday at 00:00 UTC, in seconds
      since 1970. Any does that lies within 68 years of all times.
  """

  unit: str
  scale: int
  origin: int = dataclasses.field(compare=False)

  @property
  def _per_second(self) -> int:
    return time_units.PER_SECOND[self.unit] * self.scale

  @property
  def expected(self) -> str:
    """What a time must be, in words."""
    return f'{self.unit} since 1970, or {iso_dates.EXPECTED}'

  def ticks(self, values: Sequence[Any]) -> list[int | None]:
    """Returns the ticks of times, None for None.

    Args:
      values: numbers, as the log has them, dates in ISO 8601, or None; a date
        that names no zone is of UTC.

    Raises:
      UsageError: neither, or a number of another unit.
    """
    if not all(type(value) is int for value in values):
      return [None if value is None else self._tick(value) for value in values]
    whole = np.array(values, np.int64)
    for end in (whole.min(), whole.max()) if len(whole) else ():
      self._check_unit(end)
    limit = _LARGEST // self.scale
    return (np.clip(whole, -limit, limit) * self.scale).tolist()

  def _tick(self, value: str | float) -> int:
    if isinstance(value, str):
      nanoseconds = iso_dates.nanoseconds_of(value)
      if nanoseconds is not None:
        return -(-nanoseconds * self._per_second // time_units.NANOSECONDS)
      if not re.fullmatch(_WHOLE, value):
        raise errors.UsageError(f'{value!r:.60}: expected {self.expected}.')
      value = int(value)
    self._check_unit(value)
    return math.ceil(min(max(value * self.scale, -_LARGEST), _LARGEST))

  def _check_unit(self, value: float) -> None:
    other = time_units.of_number(value)
    if other not in (None, self.unit):
      raise errors.UsageError(
        f'{value} looks like {other} since 1970: expected {self.expected}.'
      )

  def now(self) -> int:
    """Returns the tick of now."""
    return -(-time.time_ns() * self._per_second // time_units.NANOSECONDS)

  def seconds(self, ticks: np.ndarray) -> np.ndarray:
    """Returns ticks as a model reads them: seconds after `origin`, int32."""
    after = ticks // self._per_second - self.origin
    return np.clip(after, _INT32.min, _INT32.max).astype(np.int32)

  def shown(self, ticks: list[int | None]) -> Sequence[float | None]:
    """Returns ticks as numbers of the log, None for None."""
    if self.scale == 1:
      return ticks
    return [None if tick is None else tick / self.scale for tick in ticks]


def of_bundle(path: pathlib.Path, manifest: Mapping[str, Any]) -> Times | None:
  """Returns the times that a bundle's model reads, None where it reads none.

  Raises:
    UsageError: the bundle is of a version that did not tell of them.
  """
  if not manifest.get('real_time'):
    return None
  if 'times' not in manifest:
    raise errors.UsageError(
      f'bundle {path}: it does not tell what the times of its log count; export'
      f' again: {manifest_lib.again(path, manifest)}'
    )
  return Times(**manifest['times'])
