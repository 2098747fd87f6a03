"""The same tables apart and joined, and a step of either."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dare_jax import tables

ADAM = tables.lazy_adam(0.1, weight_decay=0.01)
_MOMENTUM = tables.TableOptimizer(
  optax.chain(
    optax.trace(0.9, accumulator_dtype=jnp.bfloat16),
    optax.scale_by_learning_rate(optax.linear_schedule(0.2, 0.0, 9)),
  )
)
# Dims, dtypes and optimizers of the two tables of a field, lanes of a row.
CASES = {
  'adam': ((16, 16), ('float32', 'float32'), (ADAM, ADAM), 128),
  'two rows a line': (
    (8, 3),
    ('float32', 'float32'),
    (tables.row_adagrad(0.1), ADAM),
    64,
  ),
  'several lines': ((48, 48), ('float32', 'float32'), (ADAM, ADAM), 384),
  'mixed': ((9, 4), ('bfloat16', 'float32'), (ADAM, _MOMENTUM), 64),
  'one of them': (
    (6, 4),
    ('float32', 'float32'),
    (tables.sgd(0.1), tables.adam(0.1)),
    64,
  ),
}


def sets(case: str, rows: int = 40) -> dict[str, Any]:
  """The same tables apart and joined: layout -> set and updater."""
  dims, dtypes, optimizers, lanes = CASES[case]
  specs = {
    name: tables.TableSpec('item', rows, dim, dtype=dtype)
    for name, dim, dtype in zip(('long', 'short'), dims, dtypes, strict=True)
  } | {'day': tables.TableSpec('day', 7, 3, split=False)}
  own = dict(zip(specs, (*optimizers, tables.adam(0.1)), strict=True))
  made = {}
  for name, given in (('apart', None), ('joined', own)):
    of = tables.TableSet(specs, given)
    made[name] = of, tables.TableUpdater(of, own)
  assert made['joined'][0].plans['joined_item'].row_lanes == lanes
  return made


def fresh(of: tables.TableSet, updater: tables.TableUpdater) -> Any:
  stored = jax.jit(of.init)(jax.random.key(0))
  return stored, jax.jit(updater.init_slots)(stored)


def step(
  of: tables.TableSet, updater: tables.TableUpdater, devices: int = 1
) -> Any:
  """A step whose loss is the sum of some function of all vectors read."""

  def part(stored: Any, slots: Any, ids: Any, step: Any) -> Any:
    found = of.find_rows(ids)
    read = of.gather(stored, found.rows)

    def loss_of(read: Any) -> Any:
      vectors = [read[n][found.ids[s.field]] for n, s in of.specs.items()]
      weight = 1 + ids['item'][:, None] % 9
      loss = sum(jnp.sum(jnp.sin(9 * v) * weight) for v in vectors)
      return jax.lax.psum(loss, tables.AXIS)

    grads = jax.grad(loss_of)(read)
    return read, updater.update(stored, slots, grads, found.rows, step)

  specs = of.partition_specs(), updater.partition_specs()
  return jax.jit(
    jax.shard_map(
      part,
      mesh=tables.make_mesh(jax.devices()[:devices]),
      in_specs=(*specs, tables.SPLIT, tables.WHOLE),
      out_specs=(of.gathered_specs(), specs),
    )
  )
