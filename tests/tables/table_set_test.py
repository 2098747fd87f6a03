"""What a set of tables says, refuses and trains without any model."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dare_jax import errors
from dare_jax import tables

_SET = tables.TableSet(
  {
    'item_long': tables.TableSpec('item', 50, 4),
    'item_short': tables.TableSpec('item', 50, 2),
    'day': tables.TableSpec('day', 7, 3, split=False),
  }
)
_init = jax.jit(_SET.init, static_argnums=1)


def test_tables_by_id_come_back():
  rng = np.random.default_rng(0)
  own = {
    name: rng.normal(size=(spec.rows, spec.dim)).astype(np.float32)
    for name, spec in _SET.specs.items()
  }
  stored = jax.jit(_SET.from_ids)(own)
  for name, table in stored.items():
    assert table.shape[0] == _SET.stored_rows(name)
    places = _SET.position(_SET.specs[name].field, np.arange(len(own[name])))
    np.testing.assert_array_equal(np.asarray(table)[places], own[name])
  chex.assert_trees_all_equal(jax.device_get(_SET.by_id(stored)), own)


def test_fresh_tables():
  wide = jax.nn.initializers.normal(0.5)
  made = _init(jax.random.key(0), wide)
  again = _init(jax.random.key(0), wide)
  chex.assert_trees_all_equal(made, again)
  by_id = jax.device_get(_SET.by_id(made))
  for name, table in by_id.items():
    assert table.shape == (_SET.specs[name].rows, _SET.specs[name].dim)
    assert not table[0].any() and table[1:].all()
    assert 0.2 < np.std(table) < 0.8
  assert np.std(_init(jax.random.key(1))['item_long']) < 0.02


def _step(updater: tables.TableUpdater) -> Any:
  """A step whose loss is the sum of all vectors read, times their weights."""

  def part(own: Any, slots: Any, ids: Any, weight: Any) -> Any:
    found = _SET.find_rows(ids)
    read = _SET.gather(own, found.rows)

    def loss_of(read: Any) -> Any:
      vectors = [
        read[name][found.ids[spec.field]] for name, spec in _SET.specs.items()
      ]
      loss = sum(jnp.sum(v * weight[:, None]) for v in vectors)
      return jax.lax.psum(loss, tables.AXIS)

    grads = jax.grad(loss_of)(read)
    return updater.update(own, slots, grads, found.rows, jnp.int32(0))

  specs = _SET.partition_specs(), updater.partition_specs()
  return jax.jit(
    jax.shard_map(
      part,
      mesh=tables.make_mesh(jax.devices()[:1]),
      in_specs=(*specs, tables.SPLIT, tables.SPLIT),
      out_specs=specs,
    )
  )


def test_each_table_has_an_optimizer_of_its_own():
  """By rows, whole, and of a table that is not split, in one step."""
  updater = tables.TableUpdater(
    _SET,
    {
      'item_long': tables.sgd(0.1),
      'item_short': tables.adam(0.1),
      'day': tables.TableOptimizer(optax.sgd(0.1, momentum=0.9)),
    },
  )
  assert [updater.is_row_sparse(name) for name in _SET.specs] == [
    True,
    False,
    False,
  ]
  own = _init(jax.random.key(0))
  slots = jax.jit(updater.init_slots)(own)
  ids = {'item': np.array([3, 0, 3, 49]), 'day': np.array([1, 1, 6, 2])}
  weight = np.array([1.0, 1.0, 0.5, 2.0], np.float32)
  new, _ = _step(updater)(own, slots, ids, weight)
  old, new = (jax.device_get(_SET.by_id(t)) for t in (own, new))
  moved = np.zeros((50, 1), np.float32)
  moved[[3, 49], 0] = 1.5, 2.0  # Not padding.
  np.testing.assert_allclose(
    new['item_long'], old['item_long'] - 0.1 * moved, atol=1e-6
  )
  # Adam's first step has the size of the rate; padding has a gradient, too.
  moved = np.zeros((50, 1), np.float32)
  moved[[0, 3, 49]] = 1.0
  np.testing.assert_allclose(
    new['item_short'], old['item_short'] - 0.1 * moved, atol=1e-5
  )
  moved = np.array([0, 2, 2, 0, 0, 0, 0.5], np.float32)[:, None]
  np.testing.assert_allclose(new['day'], old['day'] - 0.1 * moved, atol=1e-6)


def _specs(**changes: Any) -> dict[str, tables.TableSpec]:
  given = {'field': 'item', 'rows': 50, 'dim': 2} | changes
  return {
    'one': tables.TableSpec('item', 50, 2),
    'two': tables.TableSpec(**given),
  }


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: _specs(rows=0), 'rows=0; expected 1 or more'),
    (lambda: _specs(dtype='float16'), "'float16'; expected one of float32"),
    (lambda: _specs(dtype='bfloat16', split=False), 'where split=False'),
    (lambda: tables.TableSet(_specs(rows=51)), 'rows=50 and 51'),
    (lambda: tables.TableSet(_specs(split=False)), 'split=True and False'),
    (
      lambda: tables.TableUpdater(
        tables.TableSet(_specs(dtype='bfloat16')), tables.adam(0.1)
      ),
      "table 'two' is bfloat16, which is for row-sparse",
    ),
    (
      lambda: tables.TableUpdater(_SET, {'day': tables.sgd(0.1)}),
      'of the tables day; expected one of each of day, item_long',
    ),
    (
      lambda: _SET.from_ids({'day': jnp.zeros((8, 3))}),
      r"'day' has the shape \(8, 3\); expected \(7, 3\)",
    ),
  ],
)
def test_what_cannot_be_is_told(make, message):
  with pytest.raises(errors.UsageError, match=message):
    make()
