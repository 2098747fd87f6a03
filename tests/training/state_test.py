"""The two jitted steps on tiny data."""

from __future__ import annotations

import functools

from absl.testing import absltest
import chex
import jax
import numpy as np

from dare_jax import types
from dare_jax.training import log_window
from dare_jax.training import losses
from dare_jax.training import state as train_state
from dare_jax.training import state_summary
from tests.models import examples

_STEPS = 20


def _batch(seed: int = 0) -> types.Batch:
  batch = examples.make_batch(seed)
  weight = np.array(batch.targets.weight)
  weight[-1] = 0.0
  return batch.replace(targets=batch.targets.replace(weight=weight))


@functools.cache
def _trainer() -> train_state.Trainer:
  return train_state.Trainer(
    examples.build('dare'), examples.optim(aux_weight=0.5, l2=1e-3), _STEPS
  )


def _init() -> train_state.TrainState:
  return _trainer().init(3, _batch())


@functools.cache
def _trained() -> tuple[train_state.TrainState, list[float]]:
  state, found = _init(), []
  for _ in range(_STEPS):
    state, loss = _trainer().train_step(state, _batch())
    found.append(float(loss))
  return state, found


class TrainStepTest(absltest.TestCase):
  def test_loss_decreases(self):
    _, found = _trained()
    assert np.isfinite(found).all()
    # It starts near 1.5 log(2), a guess; the batch can be learnt by heart.
    assert found[-1] < 0.75 * found[0], found

  def test_first_loss_is_its_parts(self):
    state, batch = _init(), _batch()
    variables = {
      'params': state.params,
      'tables': state.tables,
      'batch_stats': state.batch_stats,
    }
    _, output = examples.outputs(_trainer().model, variables, batch)
    weight = batch.targets.weight
    entropy = jax.jit(losses.binary_cross_entropy)
    main, aux = (
      np.average(entropy(logits, batch.targets.label), weights=weight)
      for logits in (output.logits, output.aux_logits)
    )
    l2 = jax.jit(losses.l2_penalty)(state.params)
    np.testing.assert_allclose(
      _trained()[1][0], main + 0.5 * aux + 1e-3 * l2, rtol=1e-4
    )

  def test_sums_add_up(self):
    state, found = _trained()
    sums = jax.device_get(state.sums)
    assert set(sums) == set(log_window.SUM_NAMES)
    targets = _batch().targets
    real = float(targets.weight.sum())
    assert sums['steps'] == _STEPS and state.step == _STEPS
    assert sums['weight'] == _STEPS * real
    positives = float((targets.weight * targets.label).sum())
    assert sums['label'] == _STEPS * positives
    assert 0 <= sums['right'] <= sums['weight']
    np.testing.assert_allclose(sums['loss'], sum(found), rtol=1e-5)
    report = log_window.summarize(sums)
    assert not report.left_out
    means = report.values
    np.testing.assert_allclose(means['loss'], np.mean(found), rtol=1e-5)
    # Losses are a mean of steps; logloss one of targets.
    np.testing.assert_allclose(
      means['logloss'], sums['logloss'] / (_STEPS * real), rtol=1e-6
    )
    np.testing.assert_allclose(
      means['calibration'], sums['prob'] / (_STEPS * positives), rtol=1e-5
    )

  def test_two_runs_are_bit_equal_and_seeds_differ(self):
    state, found = _trained()
    _trained.cache_clear()
    again, losses_again = _trained()
    assert found == losses_again
    chex.assert_trees_all_equal(state, again)
    other = jax.device_get(_trainer().init(4, _batch()).tables)
    first = jax.device_get(_init().tables)
    for a, b in zip(
      jax.tree.leaves(first), jax.tree.leaves(other), strict=True
    ):
      assert (a != b).any()

  def test_old_state_is_given_away(self):
    state = _init()
    _trainer().train_step(state, _batch())
    for part in (state.tables, state.params):
      assert all(leaf.is_deleted() for leaf in jax.tree.leaves(part))

  def test_padding_rows_and_unread_rows_stay(self):
    before, after = (
      jax.device_get(state.tables['encoder'])
      for state in (_init(), _trained()[0])
    )
    batch = _batch()
    for field in examples.VOCAB:
      read = {
        *np.asarray(batch.history.ids[field]).ravel().tolist(),
        *np.asarray(batch.targets.ids[field]).ravel().tolist(),
      }
      unread = [0, *sorted(set(range(examples.VOCAB[field])) - read)]
      for role in ('attention', 'representation'):
        name = f'{field}_{role}'
        np.testing.assert_array_equal(after[name][unread], before[name][unread])
        assert (after[name] != before[name]).any()


class PredictStepTest(absltest.TestCase):
  def test_logits_are_the_model_s(self):
    state, batch = _trained()[0], _batch(1)
    logits, found = _trainer().predict_step(state, batch)
    assert found is None
    variables = {
      'params': state.params,
      'tables': state.tables,
      'batch_stats': state.batch_stats,
    }
    chex.assert_trees_all_close(
      logits,
      examples.predict(_trainer().model, variables, batch),
      rtol=1e-4,
      atol=1e-5,
    )


class CountTest(absltest.TestCase):
  def test_parameters_by_role(self):
    counts = state_summary.count_parameters(_init(), _trainer().tables)
    sizes = 3 * (sum(examples.VOCAB.values()) + 1 + 4 + 128)
    assert counts['attention_tables'] == sizes
    assert counts['representation_tables'] == sizes
    params = jax.tree.leaves(_init().params)
    assert counts['other'] == sum(leaf.size for leaf in params)


if __name__ == '__main__':
  absltest.main()
