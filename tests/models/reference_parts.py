"""What the reference needs of no model: tables by plan, and some formulas."""

from collections.abc import Mapping
import math
from typing import Any

import numpy as np

_BN_ROWS = 20_490
# (role, side) -> table, for each plan.
_A, _R = 'attention', 'representation'
TABLES = {
  'shared': {
    (_A, 'target'): 'shared',
    (_A, 'behavior'): 'shared',
    (_R, 'target'): 'shared',
    (_R, 'behavior'): 'shared',
  },
  'decoupled': {
    (_A, 'target'): 'attention',
    (_A, 'behavior'): 'attention',
    (_R, 'target'): 'representation',
    (_R, 'behavior'): 'representation',
  },
  'three': {
    (_A, 'target'): 'attention_target',
    (_A, 'behavior'): 'attention_behavior',
    (_R, 'target'): 'representation',
    (_R, 'behavior'): 'representation',
  },
  'four': {
    (_A, 'target'): 'attention_target',
    (_A, 'behavior'): 'attention_behavior',
    (_R, 'target'): 'representation_target',
    (_R, 'behavior'): 'representation_behavior',
  },
}
for _name in ('', '_tied', '_mlp', '_concat', '_concat_tied'):
  TABLES[f'projected{_name}'] = TABLES['shared']
  TABLES[f'projected{_name}_by_role'] = TABLES['decoupled']


def time_id(distance: int, exact: int) -> int:
  """Distance itself, then 8 ids a doubling: exact * 2^(j/8) <= distance."""
  if distance <= exact:
    return distance
  j = 0
  while distance**8 >= exact**8 * 2 ** (j + 1) and j < 127:
    j += 1
  return exact + 1 + j


def softmax(scores: list[float]) -> list[float]:
  """Softmax of a list; of an empty one, an empty one."""
  if not scores:
    return []
  peak = max(scores)
  powers = [math.exp(score - peak) for score in scores]
  return [power / sum(powers) for power in powers]


def moved(old: Any, batch: Any, count: int, keep: float | None) -> Any:
  """Running statistics after a batch of `count` rows: its mean and variance."""
  (mean, var), stats, between = batch, {}, 0.0
  if keep is None:
    rows = min(old['count'] + count, 10 * _BN_ROWS)
    keep, stats = 1 - min(count / (rows / 10), 1), {'count': rows}
    between = keep * (1 - keep) * (mean - old['mean']) ** 2
  stats['mean'] = keep * old['mean'] + (1 - keep) * mean
  stats['var'] = keep * old['var'] + (1 - keep) * var + between
  return stats


def float64(tree: Any) -> Any:
  """A tree of arrays, as float64 of NumPy."""
  if isinstance(tree, Mapping):
    return {name: float64(value) for name, value in tree.items()}
  return np.asarray(tree).astype(np.float64)
