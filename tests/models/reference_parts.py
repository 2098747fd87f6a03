"""What the reference needs of no model: tables by plan, and two formulas."""

import math

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
