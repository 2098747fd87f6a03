"""Tables joined with their slots: what lies there, and a step of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dare_jax import errors
from dare_jax import tables
from dare_jax.tables import layout
from tests import tiny
from tests.models import examples
from tests.tables import twins

_apart = jax.jit(tables.apart)


@pytest.mark.parametrize(
  ('case', 'rows'),
  [('mixed', 40), ('mixed', 3 * layout.PARTS), ('several lines', 40)],
)
@pytest.mark.quick_cases('mixed-40')
def test_all_comes_back_bit_for_bit(case, rows):
  sets = twins.sets(case, rows)
  apart, joined = (twins.fresh(*made) for made in sets.values())
  tiny.assert_same_bits(_apart(*joined), apart)
  again = jax.jit(sets['joined'][1].join)(*apart)
  assert jax.tree.structure(again) == jax.tree.structure(joined)
  tiny.assert_same_bits(_apart(*again), apart)
  for name in ('long', 'short', 'day'):
    value = np.asarray(apart[0][name])
    value = jax.device_put(value + np.ones((), value.dtype))
    mine = jax.device_put(jax.device_get(joined[0]))  # Is donated.
    changed = tables.write_table(mine, name, value)
    tiny.assert_same_bits(tables.read_table(changed, name), value)
    others, _ = _apart(changed, joined[1])
    tiny.assert_same_bits(others, {**apart[0], name: value})


# Of neighbours in storage, of duplicates, of padding alone in its line.
_IDS = [
  np.array([3, 0, 3, 39, 4, 3, 5, 0]),
  np.array([1, 2, 7, 8, 9, 10, 11, 7]),
  np.arange(8) + 20,
]


@pytest.mark.parametrize(
  'case', ['adam', 'two rows a line', 'mixed', 'one of them']
)
@pytest.mark.quick_cases('mixed')
def test_steps_of_joined_tables_are_those_of_tables_apart(case):
  rows = 3 * layout.PARTS  # Some lines have two rows, others one.
  is_wide = 'bfloat16' not in twins.CASES[case][1]
  with jax.enable_x64(is_wide):
    found = {}
    for name, made in twins.sets(case, rows).items():
      state, step = twins.fresh(*made), twins.step(*made)
      widen = examples.to_float64 if is_wide else lambda tree: tree
      state = widen(state)
      for number, ids in enumerate(_IDS):
        # Rows that lie next to each other in storage, two to a line.
        near = layout.row_at(ids, made[0].stored_rows('long')) % rows
        item = np.concatenate([ids, near])
        read, state = step(
          *state, {'item': item, 'day': item % 7}, np.int32(number)
        )
      found[name] = read, _apart(*state)
  one, other = map(jax.tree.leaves, found.values())
  for a, b in zip(one, other, strict=True):
    assert a.dtype == b.dtype
    gap = 1e-12 if is_wide else 2e-6
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    np.testing.assert_allclose(b, a, rtol=gap, atol=gap)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (
      lambda: tables.TableSet(
        {
          'item': tables.TableSpec('item', 9, 2),
          'joined_item': tables.TableSpec('user', 9, 2),
        },
        twins.ADAM,
      ),
      "'joined_item', as are the joined tables of item",
    ),
    (
      lambda: tables.TableUpdater(
        twins.sets('adam')['joined'][0], tables.sgd(0.1)
      ),
      'joined for other optimizers',
    ),
    (
      lambda: tables.TableSet(
        {'item': tables.TableSpec('item', 9, 2)},
        tables.TableOptimizer(
          optax.GradientTransformation(
            lambda table: jnp.zeros(table.shape, jnp.int8), lambda g, s, p: g
          )
        ),
      ),
      "'item' has a slot of dtype int8",
    ),
  ],
)
def test_what_cannot_be_joined_is_told(make, message):
  with pytest.raises(errors.UsageError, match=message):
    make()
