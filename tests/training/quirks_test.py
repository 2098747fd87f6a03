"""The switches of a training: each one's two behaviors."""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import models
from dare_jax.models.official import recipe
from dare_jax.training import losses
from dare_jax.training import state as train_state
from dare_jax.training.roles import role_balance
from tests.models import examples


def _optim(**changes: Any) -> Any:
  return examples.optim(**({'l2': 0.0} | changes))


def _first_loss(model: models.Ranker, batch: Any, **changes: Any) -> float:
  trainer = train_state.Trainer(model, _optim(**changes), 1)
  _, loss = trainer.train_step(trainer.init(0, batch), batch)
  return float(loss)


@pytest.mark.slow
def test_published_init_is_small_everywhere_but_in_biases():
  batch = examples.make_batch()
  model = examples.build('dare', hidden=(200, 80))
  fresh = examples.init(model, batch)
  drawn = jax.jit(recipe.redraw)(jax.random.key(1), fresh)
  chex.assert_trees_all_equal(drawn['batch_stats'], fresh['batch_stats'])
  head = drawn['params']['head']
  assert np.std(head['Dense_1']['kernel']) == pytest.approx(0.01, rel=0.1)
  assert abs(float(head['PReLU_0']['negative_slope'])) < 0.06
  assert np.abs(head['BatchNorm_0']['scale']).max() < 0.06
  assert not np.any(head['BatchNorm_0']['bias'])
  bias = np.abs(head['Dense_1']['bias'])
  assert 0.5 * 200**-0.5 < bias.max() <= 200**-0.5
  for table in jax.tree.leaves(drawn['tables']):
    assert np.std(table) == pytest.approx(0.01, rel=0.5)
  # And the trainer draws so, if told.
  trainer = train_state.Trainer(model, _optim(published_init=True), 1)
  scale = trainer.init(0, batch).params['head']['BatchNorm_0']['scale']
  assert np.abs(scale).max() < 0.06


@pytest.mark.slow
def test_l2_on_norms_and_epsilon():
  batch = examples.make_batch()
  model = examples.build('dare')
  params = train_state.Trainer(model, _optim(), 1).init(0, batch).params
  plain = _first_loss(model, batch)
  kernels = float(losses.l2_penalty(params))
  with_norms = float(losses.l2_penalty(params, norms=True))
  norms = sum(
    float(np.square(leaf).sum())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key in ('scale', 'negative_slope')
  )
  assert norms > 1 and with_norms == pytest.approx(kernels + norms)
  decayed = _first_loss(model, batch, l2=0.1, l2_on_norms=True)
  assert decayed == pytest.approx(plain + 0.1 * with_norms, rel=1e-5)
  decayed = _first_loss(model, batch, l2=0.1)
  assert decayed == pytest.approx(plain + 0.1 * kernels, rel=1e-5)
  # p + 0.5 in place of p: below the exact loss by at least ln 1.5 each.
  eased = _first_loss(model, batch, loss_epsilon=0.5)
  assert eased < plain - 2 * np.log(1.5)


def test_batch_statistics_in_evaluation():
  batch = examples.make_batch()
  model = examples.build('dare')
  variables = examples.make_variables(model, batch)
  evaluated, trained = examples.outputs(model, variables, batch)
  always = models.Ranker(
    dataclasses.replace(model.config, batch_statistics=True)
  )
  of_batch = examples.evaluate(always, variables, batch).output
  chex.assert_trees_all_close(of_batch.logits, trained.logits, rtol=1e-6)
  assert np.abs(of_batch.logits - evaluated.logits).max() > 0.1
  # The predict step runs either.
  trainer = train_state.Trainer(always, _optim(), 1)
  state = trainer.init(0, batch)
  assert np.isfinite(trainer.predict_step(state, batch)[0]).all()


@pytest.mark.slow
def test_balanced_gradients_sum_the_roles_at_equal_length():
  batch = examples.make_batch()
  twin = examples.build('twin')
  trainer = train_state.Trainer(twin, _optim(balance_gradients=True), 1)
  state = trainer.init(0, batch)
  before = jax.tree.map(np.asarray, state.tables['encoder'])
  dare = examples.build('dare')
  encoder = {
    name.replace('shared', role): table
    for name, table in before.items()
    for role in ('attention', 'representation')
  }
  variables = {
    'params': state.params,
    'batch_stats': state.batch_stats,
    'tables': {'encoder': encoder},
  }
  grads = examples.measure(dare, variables, batch).grads['tables']['encoder']
  norms = lambda name, pair: [jnp.sum(grad**2) for grad in pair]
  merged = role_balance.merge(grads, state.tables['encoder'], norms)
  for name, grad in merged.items():
    a, r = (
      np.asarray(grads[name.replace('shared', role)])
      for role in ('attention', 'representation')
    )
    expected = r + a * np.linalg.norm(r) / np.linalg.norm(a)
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-6)
  state, loss = trainer.train_step(state, batch)
  assert np.isfinite(loss)
  plain = _first_loss(twin, batch)
  assert float(loss) == pytest.approx(plain, rel=1e-6)
  with pytest.raises(errors.UsageError, match='both roles'):
    train_state.Trainer(dare, _optim(balance_gradients=True), 1)


def test_two_outputs_are_one_logit():
  batch = examples.make_batch()
  one, two = (
    examples.build('dare', two_outputs=value) for value in (False, True)
  )
  variables = examples.make_variables(two, batch)
  logits = examples.predict(two, variables, batch)
  params = jax.tree.map(lambda x: x, variables['params'])
  for name, last in (('head', 'Dense_2'), ('aux', 'Dense_1')):
    dense = params[name][last]
    params[name][last] = {
      key: value[..., :1] - value[..., 1:] for key, value in dense.items()
    }
  merged = examples.predict(one, {**variables, 'params': params}, batch)
  chex.assert_trees_all_close(merged, logits, rtol=1e-5, atol=1e-5)


def test_constants_never_move():
  batch = examples.make_batch()
  trainer = train_state.Trainer(examples.build('eta'), _optim(), 1)
  state = trainer.init(0, batch)
  before = jax.tree.map(np.array, state.constants)
  assert jax.tree.leaves(before)
  for _ in range(3):
    state, _ = trainer.train_step(state, batch)
  chex.assert_trees_all_equal(jax.device_get(state.constants), before)
