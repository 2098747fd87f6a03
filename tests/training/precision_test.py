"""Training with bfloat16 activations against float32."""

from __future__ import annotations

import pathlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import layers
from dare_jax.models import head
from dare_jax.training import state as train_state
from tests import tiny
from tests.models import examples


def test_a_rows_gradients_are_summed_wide():
  # bfloat16 counts to 256: 256 + 1 = 256.
  model = examples.build('dare', compute_dtype='bfloat16')
  batch = examples.make_batch()
  variables = examples.make_variables(model, batch)
  threes = jax.device_put(np.full(5_000, 3))
  ids = dict.fromkeys(('item', 'category'), threes)

  def total(tables: Any) -> jax.Array:
    vectors = model.apply(
      {**variables, 'tables': tables},
      method=lambda module: module.encoder.lookup('attention', 'target', ids),
    )
    assert vectors.dtype == jnp.bfloat16
    return jnp.sum(vectors.astype(jnp.float32))

  grads = jax.jit(jax.grad(total))(variables['tables'])['encoder']
  np.testing.assert_array_equal(grads['item_attention'][3], np.full(3, 5_000))


def test_statistics_and_logits_are_wide():
  features = np.linspace(-1.0, 1.0, 513, dtype=np.float32)[:, None]
  features = jnp.bfloat16(100.0) + features.astype(jnp.bfloat16)
  module = head.Head((4,))

  @jax.jit
  def begin_and_call(*inputs: jax.Array) -> Any:
    variables = module.init(jax.random.key(0), *inputs, True)
    params = layers.narrow(variables['params'], 'bfloat16')
    narrow = {**variables, 'params': params}
    return module.apply(narrow, *inputs, True, mutable=['batch_stats'])

  logits, updated = begin_and_call(features, np.ones(513, bool))
  assert logits.dtype == jnp.float32
  moments = updated['batch_stats']['BatchNorm_0']
  exact = np.asarray(features, np.float64)
  np.testing.assert_allclose(moments['mean'], exact.mean(), rtol=1e-6)
  # E[x^2] - E[x]^2 near 10^4 keeps three digits of a variance near 1.
  np.testing.assert_allclose(moments['var'], exact.var(), atol=1e-3)


@pytest.mark.slow
def test_what_is_trained_stays_float32():
  batch = examples.make_batch()
  losses = {}
  for dtype in layers.COMPUTE_DTYPES:
    model = examples.build('dare', compute_dtype=dtype, top_k=examples.LENGTH)
    trainer = train_state.Trainer(model, examples.optim(), 10)
    state = trainer.init(0, batch)
    before = jax.tree.map(lambda x: x.dtype, state)
    found = []
    for _ in range(5):
      state, loss = trainer.train_step(state, batch)
      found.append(float(loss))
    assert loss.dtype == jnp.float32
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x.dtype, state), before)
    losses[dtype] = found
  # Both losses near 0.7; a step of Adam goes by signs, 2^-8 of them differ.
  np.testing.assert_allclose(*losses.values(), atol=0.02)
  assert losses['float32'] != losses['bfloat16']


@pytest.mark.slow
def test_it_learns_as_much(tmp_path: pathlib.Path):
  tiny.write_log(tmp_path / 'log.csv')
  aucs = {}
  for dtype in layers.COMPUTE_DTYPES:
    config = tiny.config(
      tmp_path, model__compute_dtype=dtype, train__steps=120,
      eval__every_steps=0, checkpoint__every_steps=0,
    )  # fmt: skip
    result = tiny.run(config, tmp_path / dtype)
    aucs[dtype] = result['test']['auc']
  assert aucs['float32'] > 0.6
  assert abs(aucs['float32'] - aucs['bfloat16']) < 0.03
