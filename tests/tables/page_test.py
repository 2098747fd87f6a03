"""The code of docs/tables.md, against a plain optimizer of whole tables."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.models import examples
from tests.tables import page as page_lib

_ROWS, _BATCH, _STEPS = 300, 48, 6


def _page(model: str) -> page_lib.Page:
  """The page up to its step, in float64; call it under `jax.enable_x64`."""
  page = page_lib.Page(_ROWS, model)
  narrow = page.names['init']
  page.names['init'] = lambda key: examples.to_float64(narrow(key))
  return page


class _Dense:
  """The same training of whole tables by id.

  Every row has a gradient, and a step of Adam's; then rows that are not in the
  batch are put back as they were, with their moments, and so is padding.
  """

  def __init__(self, names: dict[str, Any], state: dict[str, Any]) -> None:
    self._predict = names['predict']
    self._adam, self._scale = optax.adam(0.01), optax.scale_by_adam()
    tables = names['table_set'].by_id(state['tables'])
    params = jax.device_get(state['params'])  # Those of the page are donated.

    @jax.jit
    def init_slots(params: Any, tables: Any) -> Any:
      slots = {name: self._scale.init(table) for name, table in tables.items()}
      return self._adam.init(params), slots

    adam_slots, slots = init_slots(params, tables)
    self.state = params, adam_slots, tables, slots
    self._jitted = jax.jit(self._step)

  def step(self, batch: dict[str, Any]) -> float:
    self.state, loss = self._jitted(self.state, batch)
    return float(loss)

  def _step(self, state: Any, batch: Any) -> tuple[Any, Any]:
    params, adam_slots, tables, slots = state

    def loss_of(params: Any, tables: Any) -> Any:
      vectors = [tables[name][batch['ids'][name]] for name in ('user', 'item')]
      logits = self._predict(params, *vectors)
      return optax.sigmoid_binary_cross_entropy(logits, batch['label']).mean()

    grad = jax.value_and_grad(loss_of, argnums=(0, 1))
    loss, (grads, table_grads) = grad(params, tables)
    change, adam_slots = self._adam.update(grads, adam_slots)
    new_tables, new_slots = {}, {}
    for name, table in tables.items():
      move, new = self._scale.update(table_grads[name], slots[name])
      is_in = jnp.zeros((_ROWS, 1), bool).at[batch['ids'][name]].set(True)
      is_in = is_in.at[0].set(False)
      keep = lambda now, before, is_in=is_in: jnp.where(is_in, now, before)
      new_tables[name] = keep(table - 0.01 * move, table)
      old = slots[name]
      new_slots[name] = new._replace(
        mu=keep(new.mu, old.mu), nu=keep(new.nu, old.nu)
      )
    params = optax.apply_updates(params, change)
    return (params, adam_slots, new_tables, new_slots), loss


def _agree(names: dict[str, Any], dense: _Dense) -> None:
  params, _, tables, _ = dense.state
  made = names['table_set'].by_id(names['state']['tables'])
  chex.assert_trees_all_close(made, tables, rtol=0, atol=1e-12)
  own = names['state']['params']
  chex.assert_trees_all_close(own, params, rtol=0, atol=1e-12)


def _compare(model: str, joined: bool = False) -> tuple[page_lib.Page, _Dense]:
  """Trains as the page does, and densely."""
  page = _page(model)
  names, draw = page.names, page_lib.batches(_ROWS, _BATCH)
  if joined:
    page.run('On TPUs')
  page.run('On a mesh', {'STEPS': 0, 'batch_of': draw})
  dense = _Dense(names, names['state'])
  first = [dense.step(draw(number)) for number in range(_STEPS)]
  page.run('On a mesh', {'STEPS': _STEPS})
  np.testing.assert_allclose(names['loss'], first[-1], rtol=0, atol=1e-12)
  _agree(names, dense)
  return page, dense


def _train_on(page: page_lib.Page, dense: _Dense) -> None:
  """Trains what was restored, and densely."""
  names, draw = page.names, page_lib.batches(_ROWS, _BATCH)
  for number in range(_STEPS, 2 * _STEPS):
    batch = names['tables'].place(names['mesh'], draw(number))
    names['state'], loss = names['step'](names['state'], batch)
    np.testing.assert_allclose(
      loss, dense.step(draw(number)), rtol=0, atol=1e-12
    )
  assert int(names['state']['step']) == 2 * _STEPS
  _agree(names, dense)


@pytest.mark.parametrize('model', page_lib.MODELS)
@pytest.mark.quick_cases('Your model')
def test_one_device(model):
  with jax.enable_x64():
    page, _ = _compare(model)
    page.run('Row = id')
    names = page.names
    back = names['again']['item']
    item = np.asarray(names['state']['tables']['item'], np.float32)
    places = names['table_set'].position('item', np.arange(_ROWS))
    np.testing.assert_array_equal(back[places], item[places])


def test_joined():
  with jax.enable_x64():
    page, _ = _compare('Plain JAX', joined=True)
    tables, state = page.names['tables'], page.names['state']
    assert set(state['tables']) == {'joined_user', 'joined_item'}
    apart, slots = tables.apart(state['tables'], state['slots'])
    assert slots['item'][0].mu.shape == apart['item'].shape


def test_rows_found_on_the_host():
  """As the page says: batch['ids'], batch['rows'] in place of what is found."""
  draw = page_lib.batches(_ROWS, _BATCH)
  with jax.enable_x64():
    found = {}
    for on_host in (False, True):
      page = _page('Plain JAX')
      page.run('On a mesh', {'STEPS': 0, 'batch_of': draw})
      if on_host:
        page.run('Rows found on the host')
        _take_rows_of_batch(page)
        with_rows = page.names['with_rows']
        page.names['batch_of'] = lambda n, make=with_rows: make(draw(n))
      page.run('On a mesh', {'STEPS': _STEPS})
      found[on_host] = page.names['state'], page.names['loss']
    chex.assert_trees_all_close(*found.values(), rtol=0, atol=1e-12)


def _take_rows_of_batch(page: page_lib.Page) -> None:
  code = page_lib.blocks()['The step']
  for old, new in (
    ("  found = table_set.find_rows(batch['ids'])\n", ''),
    ('found.rows', "batch['rows']"),
    ('found.ids', "batch['ids']"),
  ):
    assert old in code
    code = code.replace(old, new)
  init = page.names['init']
  exec(code, page.names)
  page.names['init'] = init


@pytest.mark.slow
def test_eight_devices_then_two_then_one(tmp_path):
  """The checkpoint of eight is read on two there, and here on one."""
  folder = str(tmp_path / 'state')
  done = subprocess.run(
    [sys.executable, '-m', 'tests.tables.page_test', folder],
    env=os.environ | {'JAX_NUM_CPU_DEVICES': '8'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  with jax.enable_x64():
    page = _page(page_lib.MODELS[0])
    names, draw = page.names, page_lib.batches(_ROWS, _BATCH)
    page.run('On a mesh', {'STEPS': 0, 'batch_of': draw})
    dense = _Dense(names, names['state'])
    for number in range(_STEPS):
      dense.step(draw(number))
    saving, mesh, reading = page_lib.blocks()['Checkpoints'].partition('mesh =')
    names |= {'FOLDER': folder}
    exec(saving.partition('with ')[0] + mesh + reading, names)
    _train_on(page, dense)


if __name__ == '__main__':
  with jax.enable_x64():
    trained, twin = _compare(page_lib.MODELS[0])
    assert trained.names['mesh'].size == 8
    trained.run('Checkpoints', {'FOLDER': sys.argv[1]})
    assert trained.names['mesh'].size == 2
    _train_on(trained, twin)
