"""Sharded against one device; run by `devices_test` with eight fake devices."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import search
from dare_jax import tables as tables_lib
from dare_jax import types
from dare_jax.aot import traffic
from dare_jax.checkpoints import checkpoint
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.runs import memory_plan
from dare_jax.tables import exchange
from dare_jax.tables import layout
from dare_jax.training import batch_rows
from dare_jax.training import state as train_state
from dare_jax.warm_start import starting
from tests import tiny
from tests.models import examples
from tests.parallel import parity
from tests.tables import twins

_COUNTS = (1, 2, 4, 8)


def _mesh(count: int) -> jax.sharding.Mesh:
  return mesh_lib.make(jax.devices()[:count])


def _trainer(count: int, preset: str = 'dare', **optim: Any) -> Any:
  return parity.trainer(jax.devices()[:count], preset, **optim)


@functools.cache
def _losses(
  count: int, preset: str, tables: str, steps: int = 50, **optim: Any
) -> tuple[Any, ...]:
  trainer = _trainer(count, preset, tables=tables, **optim)
  with jax.enable_x64():
    state, wide = parity.train(trainer, steps, wide=True)
    logits, _ = trainer.predict_step(
      state, examples.to_float64(parity.batch_of(7))
    )
    return wide, np.asarray(logits)


_CASES = [
  *(('dare', 'lazy_adam', count) for count in _COUNTS[1:]),
  *(('dare', 'adam', count) for count in _COUNTS[1:]),
  ('dare', 'row_adagrad', 8),
  ('twin', 'lazy_adam', 8),
  ('eta', 'lazy_adam', 8),
  ('sdim', 'adam', 8),
]


@pytest.mark.parametrize(('preset', 'tables', 'count'), _CASES)
def test_losses_of_one_device_in_float64(preset, tables, count):
  one, logits = _losses(1, preset, tables)
  many, others = _losses(count, preset, tables)
  np.testing.assert_allclose(many, one, rtol=0, atol=1e-9)
  np.testing.assert_allclose(others, logits, rtol=0, atol=1e-9)
  assert one[-1] < one[0]


@pytest.mark.parametrize('count', [1, 8])
def test_losses_of_joined_tables_in_float64(count):
  one, logits = _losses(1, 'dare', 'lazy_adam')
  many, others = _losses(count, 'dare', 'lazy_adam', table_layout='joined')
  np.testing.assert_allclose(many, one, rtol=0, atol=1e-9)
  np.testing.assert_allclose(others, logits, rtol=0, atol=1e-9)


def test_balanced_gradients_of_one_device():
  """Of a table that is split, and of one that is not."""
  one, many = (
    _losses(count, 'twin', 'lazy_adam', 10, balance_gradients=True)[0]
    for count in (1, 8)
  )
  np.testing.assert_allclose(many, one, rtol=0, atol=1e-9)
  plain = _losses(1, 'twin', 'lazy_adam')[0][:10]
  assert np.abs(np.subtract(one, plain)).max() > 1e-4


def test_observed_gradients_of_one_device():
  """Rows that several devices read are seen with the sum of their gradients."""
  batch = parity.batch_of(3)
  model = examples.build('twin', vocab_sizes=parity.VOCAB)
  optim = examples.optim(row_sparse_from=100, tables='lazy_adam')
  counts = {field: np.arange(rows) for field, rows in parity.VOCAB.items()}
  seen = []
  for count in (1, 8):
    trainer = train_state.Trainer(model, optim, 100, _mesh(count), True)
    state = trainer.init(0, batch, counts)
    placed = mesh_lib.place(trainer.mesh, jax.tree.map(np.asarray, batch))
    state, _ = trainer.train_step(state, placed)
    seen.append(jax.device_get((state.seen.sums, state.sums)))
  for one, many in zip(*map(jax.tree.leaves, seen), strict=True):
    np.testing.assert_allclose(many, one, rtol=1e-3, atol=1e-5)
  assert seen[0][0]['item_shared'][:, 0].sum() > 10


def test_losses_among_candidates_of_one_device():
  """With candidates of the batch; moments without a positive are anywhere."""
  batch = parity.batch_of(3)
  rng = np.random.default_rng(0)
  mask = rng.random(batch.targets.weight.shape) < 0.3
  weight = batch.targets.weight * ~mask
  ratio = rng.normal(size=mask.shape).astype(np.float32) * mask
  targets = batch.targets.replace(
    weight=weight, contrast=types.Contrast(mask, ratio)
  )
  batch = jax.tree.map(np.asarray, batch.replace(targets=targets))
  found = []
  for count in (1, 2):
    trainer = _trainer(count, softmax_weight=0.7, pointwise_weight=0.5)
    state = trainer.init(0, batch)
    placed = mesh_lib.place(trainer.mesh, batch)
    losses = []
    for _ in range(3):
      state, loss = trainer.train_step(state, placed)
      losses.append(float(loss))
    found.append((losses, jax.device_get(state.params)))
  for one, many in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('preset', ['dare', 'twin', 'eta', 'sdim'])
def test_losses_of_one_device_in_float32(preset):
  one, many = (
    parity.train(_trainer(count, preset), 5, windows=64)[1] for count in (1, 8)
  )
  np.testing.assert_allclose(many, one, rtol=0, atol=1e-5)


def test_rows_found_on_the_host_for_each_device():
  batch = parity.batch_of(3)
  host = jax.tree.map(np.asarray, batch)
  trainer = _trainer(8)
  made = batch_rows.BatchRows(trainer.tables.vocab_sizes, 8)(host)
  assert len(made.rows['item']) % 8 == 0
  state = trainer.init(0, batch)
  copy = jax.tree.map(jnp.copy, state)
  by_host, loss = trainer.train_step(state, mesh_lib.place(_mesh(8), made))
  by_device, expected = trainer.train_step(copy, batch)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  for name, table in by_host.tables['encoder'].items():
    np.testing.assert_allclose(
      table, by_device.tables['encoder'][name], atol=1e-6
    )


def _asked(rng: Any, rows: int, count: int, kind: str) -> np.ndarray:
  """Sorted distinct positions, padding first, filled up beyond the table."""
  if kind == 'crowded':  # All with one owner, next to each other.
    found = np.arange(count) + (rows // 8) * 3
  else:
    found = rng.choice(rows, count, replace=False)
  found = np.union1d(found, [0])[:count]
  filling = rows + np.arange(5 + count - len(found))
  return np.concatenate([np.sort(found), filling]).astype(np.int32)


@pytest.mark.parametrize('kind', ['spread', 'crowded'])
@pytest.mark.parametrize('room', [None, 1, 3, 16])
def test_rows_go_out_and_gradients_come_back(room, kind):
  rng = np.random.default_rng(0)
  num_rows, count = layout.PARTS // 64, 24
  tables = [rng.normal(size=(num_rows, width)) for width in (3, 2)]
  rows = np.stack([_asked(rng, num_rows, count, kind) for _ in range(8)])
  grads = [rng.normal(size=(*rows.shape, width)) for width in (3, 2)]

  def own(rows: Any, grads: Any, turn: Any, carry: Any) -> Any:
    assert turn.shape == ()
    # Set, not add: a row that came twice would lose a part.
    return [
      sums.at[rows].set(grad, mode='drop')
      for sums, grad in zip(carry, grads, strict=True)
    ]

  def run(tables: Any, rows: Any, grads: Any) -> Any:
    found = exchange.gather(tables, rows, room)
    zeros = [jnp.zeros_like(table) for table in tables]
    size = len(tables[0])
    return found, exchange.give_back(own, zeros, grads, rows, size, room)

  split = mesh_lib.SPLIT
  with jax.enable_x64():
    found, sums = jax.jit(
      jax.shard_map(run, mesh=_mesh(8), in_specs=split, out_specs=split)
    )(tables, rows.ravel(), [g.reshape(-1, g.shape[-1]) for g in grads])
  for part in range(2):
    padded = np.concatenate([tables[part], np.zeros((200, 3 - part))])
    np.testing.assert_array_equal(found[part], padded[rows.ravel()])
    expected = np.zeros_like(padded)
    np.add.at(expected, rows, grads[part])
    np.testing.assert_allclose(sums[part], expected[:num_rows], atol=1e-12)


@pytest.mark.parametrize('case', ['two rows a line', 'several lines'])
def test_joined_tables_are_those_of_one_device_apart(case):
  """Of ids that several devices read, or all of one owner: in two rounds."""
  rows, rng = 3 * layout.PARTS, np.random.default_rng(0)
  sets = twins.sets(case, rows)
  stored = sets['apart'][0].stored_rows('long')
  batches = [rng.integers(0, rows, 512) for _ in range(2)]
  near = rng.permutation(600)[:512] + stored // 8 * 3
  batches.append(np.asarray(layout.row_at(near, stored)))

  def train(form: str, count: int) -> Any:
    own = sets[form]
    state = examples.to_float64(jax.device_get(twins.fresh(*own)))
    step = twins.step(*own, devices=count)
    for number in range(50):
      item = batches[number % 3]
      ids = {'item': item, 'day': item % 7}
      _, state = step(*state, ids, jnp.int32(number))
      # Of two steps in flight, devices could wait for each other for ever.
      jax.block_until_ready(state)
    return jax.device_get(tables_lib.apart(*state))

  with jax.enable_x64():
    expected = train('apart', 1)
    for count in _COUNTS:
      found = train('joined', count)
      for one, many in zip(
        *map(jax.tree.leaves, (expected, found)), strict=True
      ):
        np.testing.assert_allclose(many, one, rtol=0, atol=1e-9)


def _traffic(count: int, num_items: int) -> tuple[dict[str, int], float]:
  """Bytes and operations of a device and step, four windows a device."""
  vocab = {'item': num_items, 'category': 9}
  model = examples.build('dare', vocab_sizes=vocab)
  optim = examples.optim(tables='lazy_adam', row_sparse_from=100)
  trainer = train_state.Trainer(model, optim, 100, _mesh(count))
  batch = examples.make_batch(windows=4 * count, vocab=vocab, length=40)
  room = 256
  split = jax.sharding.NamedSharding(_mesh(count), mesh_lib.SPLIT)
  batch = batch.replace(rows={'item': np.zeros(room * count, np.int32)})
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch
  )
  state = trainer.abstract_state(batch)
  compiled = trainer.train_step.lower(state, shapes).compile()
  flops = compiled.cost_analysis()['flops']
  return traffic.collective_bytes(compiled.as_text()), flops


def test_bytes_do_not_grow_with_the_catalogue_or_the_devices():
  small, work = _traffic(8, 20_000)
  assert small['all-to-all'] > 0
  assert _traffic(8, 2_000_000)[0] == small
  # No table and no scores travel: what all devices get are gradients and
  # statistics of what all of them hold.
  assert set(small) == {'all-to-all', 'all-reduce'}
  fewer, less = _traffic(2, 20_000)
  assert small['all-reduce'] == fewer['all-reduce']
  # Room for six standard deviations more than the mean is more of a small one.
  assert small['all-to-all'] <= 2 * fewer['all-to-all']
  assert work <= 1.5 * less


@pytest.mark.parametrize('form', tables_lib.LAYOUTS)
def test_a_checkpoint_fits_any_number_of_devices(tmp_path, form):
  """And either layout of tables."""
  state, _ = parity.train(_trainer(8, table_layout=form), 3)
  parts = lambda state: tables_lib.apart(
    state.tables['encoder'], state.table_slots
  )
  told = {'data_fingerprint': 'abc', 'progress': {'step': 3}}
  made = checkpoint.Checkpoints(tmp_path)
  made.save_last(3, state, told)
  made.wait()
  for count, other in itertools.product(_COUNTS, tables_lib.LAYOUTS):
    trainer = _trainer(count, table_layout=other)
    template = trainer.abstract_state(parity.batch_of(0))
    restored, description = made.restore_last(template, 'abc')
    assert description == told
    tiny.assert_same_bits(parts(restored), jax.device_get(parts(state)))
    tiny.assert_same_bits(restored.params, jax.device_get(state.params))
    table = tables_lib.read_table(restored.tables['encoder'], 'item_attention')
    assert len(table.sharding.device_set) == count
  made.close()


@pytest.mark.parametrize('count', [2, 8])
@pytest.mark.parametrize('width', [3, 2])
def test_rows_of_another_run_come_from_all_devices(count, width, monkeypatch):
  """In several chunks, and in an order that asks one owner for much."""
  monkeypatch.setattr(starting, '_CHUNK', 500)
  rng = np.random.default_rng(0)
  new, old = layout.PARTS, 2 * layout.PARTS
  source = np.where(rng.random(new) < 0.2, -1, rng.permutation(old)[:new])
  source[:3_000] = np.arange(3_000)[::-1]
  source[3_000:] = np.where(source[3_000:] < 3_000, -1, source[3_000:])
  tables = [
    rng.normal(size=(rows, wide)).astype(np.float32)
    for rows, wide in ((new, width), (old, 3))
  ]
  matrix = None if width == 3 else np.eye(3, 2, dtype=np.float32) * 2
  sharding = jax.sharding.NamedSharding(_mesh(count), mesh_lib.SPLIT)
  placed = [jax.device_put(table, sharding) for table in tables]
  moved = starting._move(
    starting._move_split, *placed, source.astype(np.int32), matrix
  )
  expected = tables[1][source]
  expected = expected if matrix is None else expected @ matrix
  expected = np.where(source[:, None] < 0, tables[0], expected)
  np.testing.assert_array_equal(moved, expected)
  assert moved.sharding == sharding


@pytest.mark.parametrize('count', [2, 8])
@pytest.mark.parametrize('rows', [3, 1200])
def test_the_best_of_a_split_history(rows, count):
  """By ranking (few rows) and by counting (many), with ties and odd scores."""
  rng = np.random.default_rng(rows)
  scores = rng.integers(-9, 9, (rows, 960)).astype(np.float32)
  strange = np.array([np.nan, -np.inf, -0.0], np.float32)
  is_odd = rng.random(scores.shape) < 0.01
  scores = np.where(is_odd, rng.choice(strange, scores.shape), scores)
  visible = rng.random(scores.shape) < 0.6
  axis = mesh_lib.AXIS
  split = jax.P(None, axis)
  run = jax.shard_map(
    lambda s, v: search.sharded_top_k(s, v, 20, axis),
    mesh=_mesh(count),
    in_specs=(split, split),
    out_specs=(split, split),
  )
  index, mask = jax.jit(run)(scores, visible)
  value = np.where(np.isnan(scores), np.inf, scores)
  order = np.argsort(
    np.where(visible, value, -np.inf)[:, ::-1] * -1, stable=True
  )
  expected = np.tile(959 - order[:, :20], count)
  np.testing.assert_array_equal(index, expected)
  assert np.asarray(mask).all()


def test_planned_memory_is_that_of_a_device():
  trainer = _trainer(8)
  batch = parity.batch_of(0)
  state = trainer.init(0, batch)
  parts = memory_plan.of_state(trainer.abstract_state(batch)).parts
  own = lambda tree: sum(
    leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree)
  )
  assert parts['tables'] == own(state.tables)
  assert parts['optimizer slots'] == own(state.table_slots)


def test_a_whole_run(tmp_path):
  """Batches that the devices do not divide, evaluation, stop and resume."""
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(
    tmp_path,
    optim__tables='lazy_adam',
    optim__row_sparse_from=50,
    train__batch_size=30,
  )
  tiny.run(made, tmp_path / 'straight')
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path / 'stopped', tiny.StopAtCheck(4))
  tiny.run(made, tmp_path / 'stopped')
  tiny.assert_same_run(made, tmp_path / 'straight', tmp_path / 'stopped')
