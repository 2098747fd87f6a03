"""Which table each role and side reads, written out for the reference."""

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
