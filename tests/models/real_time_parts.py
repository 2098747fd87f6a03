"""What real time adds, slow and obvious, for `tests.models.reference`."""

import math
from typing import Any

import numpy as np

_HOUR, _DAY = 3_600, 86_400


def between(now: int, then: int) -> int:
  """Seconds from then to now, none negative and none beyond 31 bits."""
  return min(max(int(now) - int(then), 0), 2**31 - 1)


def range_of(gap: int) -> int:
  """0, 1, 2, 3; then two to a doubling: 4 and 6, 8 and 12, 16 and 24, .."""
  edges = [
    1,
    *(edge for p in range(1, 31) for edge in (2**p, 3 * 2 ** (p - 1))),
  ]
  return sum(gap >= edge for edge in edges)


def phase(gap: int) -> int:
  """0 below a day; else 1 + the nearest day, modulo 7, halves up."""
  return 0 if gap < _DAY else 1 + math.floor(gap / _DAY + 0.5) % 7


class RealTime:
  """The real time of one batch."""

  def __init__(self, config: Any, params: Any, batch: Any) -> None:
    self.parts = config.real_time
    self.config = config
    self.params = params.get('real_time', {})
    self.time = np.asarray(batch.history.time)
    self.now = np.asarray(batch.now)

  def gap(self, b: int, m: int, i: int) -> int:
    return between(self.now[b, m], self.time[b, i])

  def score(self, b: int, m: int, i: int) -> float:
    if 'gap' not in self.parts or self.config.aggregation == 'buckets':
      return 0.0
    gap = self.gap(b, m, i)
    of_gap = self.params['gap_bias'][range_of(gap)]
    return float(of_gap + self.params['phase_bias'][phase(gap)])

  def vector(self, b: int, m: int, i: int) -> np.ndarray:
    if 'gap' not in self.parts:
      return np.zeros(0)
    gap = self.gap(b, m, i)
    of_gap = self.params['gap_vectors'][range_of(gap)]
    return of_gap + self.params['phase_vectors'][phase(gap)]

  def own_vector(self) -> np.ndarray:
    return self.params.get('own_vector', np.zeros(0))

  def features(
    self, b: int, m: int, seen: list[int], matches: list[list[int]]
  ) -> list[float]:
    """What heads see: of `seen`, and of the matches of each field."""
    made: list[float] = []
    if 'gap' in self.parts:
      since = self.gap(b, m, max(seen)) if seen else 0
      made += [bool(seen), math.log(1 + since)]
      for same in matches:
        if not same:
          made += [0.0, 0.0, 0.0]
          continue
        gap = self.gap(b, m, max(same))
        turn = 2 * math.pi * (gap % (7 * _DAY)) / (7 * _DAY)
        made += [math.log(1 + gap), math.cos(turn), math.sin(turn)]
    for part in self.parts:
      if part != 'gap':
        week = int(self.now[b, m]) // _HOUR % (7 * 24)
        value = {'weekday': week // 24, 'hour': week % 24}
        table = self.params[f'moment_tables_{part}']['embedding']
        made += table[value[part]].tolist()
    return made
