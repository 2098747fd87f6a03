"""What matches add, slow and obvious, for `tests.models.reference`."""

import math
from typing import Any

import numpy as np


class Matches:
  """Where targets of one batch have an id of a behavior."""

  def __init__(self, config: Any, params: Any, batch: Any) -> None:
    self.config = config
    self.params = params.get('matcher', {})
    self.ids = {k: np.asarray(v) for k, v in batch.history.ids.items()}
    self.target_ids = {k: np.asarray(v) for k, v in batch.targets.ids.items()}
    self.end = np.asarray(batch.end)

  def equals(self, field: str, b: int, m: int, c: int, i: int) -> bool:
    """Whether a behavior has the target's id: unknown ones have none."""
    target = self.target_ids[field][b, m, c]
    return bool(target > 1 and target == self.ids[field][b, i])

  def score(self, b: int, m: int, c: int, i: int) -> float:
    """The biases of item and category, where target and behavior have one."""
    if self.config.aggregation == 'buckets':
      return 0.0
    biased = [f for f in self.config.match_fields if f in ('item', 'category')]
    same = [self.equals(field, b, m, c, i) for field in biased]
    return sum(same * self.params['bias']) if biased else 0.0

  def of_target(
    self, b: int, m: int, c: int, seen: list[int]
  ) -> list[list[int]]:
    """Of each match field, the behaviors seen that have the target's id."""
    return [
      [i for i in seen if self.equals(field, b, m, c, i)]
      for field in self.config.match_fields
    ]

  def features(self, b: int, m: int, matches: list[list[int]]) -> list[float]:
    """Of each field: is there a match, how many, how far back the last is."""
    made: list[float] = []
    for same in matches:
      nearest = self.end[b, m] - max(same) if same else 1
      made += [bool(same), math.log(1 + len(same)), math.log(nearest)]
    return made
