"""Weights of the published code give the published code's numbers.

`official/*.npz` hold what that code computed: see `official_parity_test`, which
sets the same weights by hand. `*_adam.npz` hold its state after three steps of
Adam in float64 (learning rate 0.01, batches full, pad, full; loss + 1e-6 l2),
stored alike; of kernels of more than 4,000 numbers five rows. What no file
covers is compared with the equations in `official_variants_test`.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import itertools
import json
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import optax
import pytest

from dare_jax import aggregate
from dare_jax import models
from dare_jax import types
from dare_jax.training import losses
from tests.models import examples
from tests.models import official_state

_BATCHES = ('full', 'pad')
_FLOAT32 = {'rtol': 1e-5, 'atol': 1e-5}
# Bounded by the float32 storage of the larger arrays.
_FLOAT64 = {'rtol': 2e-7, 'atol': 1e-10}
_softmax = jax.jit(aggregate.masked_softmax)
_BOTH = parameterized.named_parameters(('dare', 'dare'), ('twin', 'twin'))


def _import(name: str, dtype: Any = np.float32, **overrides: Any) -> Any:
  top_k = json.loads(str(official_state.file(name)['config_json']))['top_k']
  return models.from_official_state_dict(
    official_state.state(name, dtype), name, **{'top_k': top_k, **overrides}
  )


def _batch(name: str, batch: str, dtype: Any = np.float32) -> types.Batch:
  start = f'in/{batch}/'
  file = official_state.file(name)
  data = {k.removeprefix(start): file[k] for k in file if k.startswith(start)}
  return official_state.to_batch(data, dtype)


def _trained(variables: Mapping[str, Any]) -> dict[str, Any]:
  return {key: variables[key] for key in ('params', 'tables')}


def _loss(module: Any, variables: Any, trained: Any, batch: Any) -> Any:
  """The published loss without l2; aux loss, output and statistics."""
  output, updated = module.apply(
    {**variables, **trained}, batch, train=True, mutable=['batch_stats']
  )
  main, aux = (
    losses.weighted_mean(
      losses.binary_cross_entropy(logits, batch.targets.label, 1e-8),
      batch.targets.weight,
    )
    for logits in (output.logits, output.aux_logits)
  )
  return main + aux, (aux, output, updated['batch_stats'])


@functools.cache
def _step(name: str) -> Any:
  """A jitted pass in train mode, forward and backward, and a prediction."""
  module, _ = _import(name, two_outputs=True)

  def step(variables: Any, batch: types.Batch) -> Any:
    compute = functools.partial(_loss, module, variables)
    (loss, (aux, output, _)), grads = jax.value_and_grad(compute, has_aux=True)(
      _trained(variables), batch
    )
    return {
      'loss': loss,
      'aux_loss': aux,
      'grads': grads,
      'train': output.logits,
      'search': output.search,
      'eval': module.apply(variables, batch).logits,
    }

  return jax.jit(step)


@functools.cache
def _computed(name: str, batch: str, wide: bool) -> dict[str, Any]:
  """What the pass gives, with two outputs a head, in float64 if `wide`."""
  dtype = np.float64 if wide else np.float32
  with jax.enable_x64(wide):
    _, variables = _import(name, dtype, two_outputs=True)
    found = _step(name)(variables, _batch(name, batch, dtype))
    return jax.tree.map(np.asarray, found)


def _sigmoid(logits: Any) -> np.ndarray:
  return 1 / (1 + np.exp(-np.asarray(logits, np.float64)[:, 0, 0]))


def _named(
  trees: Mapping[str, Any], model: models.Ranker
) -> dict[str, np.ndarray]:
  """Published name -> array, of parameters, tables and statistics."""
  tables = trees['tables']['encoder']
  named = {}
  for key, table in tables.items():
    field, suffix = key.split('_', 1)
    role = 'attention' if suffix == 'shared' else suffix
    named[official_state.table(field, role, 'target')] = np.asarray(table)
  for head, mlp in (('head', 'main_mlp'), ('aux', 'auxiliary_mlp')):
    params = trees['params'][head]
    norm = params['BatchNorm_0']
    named[f'{mlp}.0.weight'] = np.asarray(norm['scale'])
    named[f'{mlp}.0.bias'] = np.asarray(norm['bias'])
    if 'batch_stats' in trees:
      stats = trees['batch_stats'][head]['BatchNorm_0']
      for what in ('mean', 'var'):
        named[f'{mlp}.0.running_{what}'] = np.asarray(stats[what])
    hidden = model.config.hidden if head == 'head' else model.config.aux_hidden
    for layer in range(len(hidden) + 1):
      dense = params[f'Dense_{layer}']
      at = 1 + 2 * layer
      named[f'{mlp}.{at}.weight'] = np.asarray(dense['kernel']).T
      named[f'{mlp}.{at}.bias'] = np.asarray(dense['bias'])
      if layer < len(hidden):
        slope = params[f'PReLU_{layer}']['negative_slope']
        named[f'{mlp}.{at + 1}.weight'] = np.asarray(slope).reshape(1)
  return named


class PublishedNumbersTest(parameterized.TestCase):
  @_BOTH
  @pytest.mark.quick_cases('dare')
  def test_probabilities_and_losses(self, name):
    file = official_state.file(name)
    for batch, wide in itertools.product(_BATCHES, (False, True)):
      bound = _FLOAT64 if wide else _FLOAT32
      found = _computed(name, batch, wide)
      for mode in ('train', 'eval'):
        expected = file[f'out/{batch}/{mode}/prob'][:, 0] - 1e-8
        np.testing.assert_allclose(_sigmoid(found[mode]), expected, **bound)
      for key in ('loss', 'aux_loss'):
        expected = file[f'out/{batch}/train/{key}']
        np.testing.assert_allclose(found[key], expected, **bound)

  @_BOTH
  def test_one_output_is_the_difference_of_two(self, name):
    batch = _batch(name, 'pad')
    module, variables = _import(name)
    assert variables['params']['head']['Dense_2']['kernel'].shape == (80, 1)
    assert variables['params']['aux']['Dense_1']['kernel'].shape == (200, 1)
    expected = official_state.file(name)['out/pad/eval/prob'][:, 0] - 1e-8
    logits = examples.predict(module, variables, batch)
    np.testing.assert_allclose(_sigmoid(logits), expected, **_FLOAT32)

  @_BOTH
  @pytest.mark.quick_cases('dare')
  def test_batch_statistics_in_evaluation(self, name):
    module, variables = _import(name, batch_statistics=True)
    logits = examples.predict(module, variables, _batch(name, 'full'))
    expected = official_state.file(name)['out/full/train/prob'][:, 0] - 1e-8
    np.testing.assert_allclose(_sigmoid(logits), expected, **_FLOAT32)

  @_BOTH
  @pytest.mark.quick_cases('dare')
  def test_scores_and_search(self, name):
    for batch in _BATCHES:
      get = lambda key, batch=batch: official_state.file(name)[
        f'out/{batch}/train/{key}'
      ]
      data = _batch(name, batch)
      mask = np.asarray(data.history.mask)
      module, variables = _import(name, search='all')
      full = examples.evaluate(module, variables, data).output.search
      scores = np.asarray(full.scores)[:, 0, 0]
      np.testing.assert_allclose(scores[mask], get('scores')[mask], **_FLOAT32)
      weights = np.asarray(_softmax(full.scores, full.mask))[:, 0, 0]
      np.testing.assert_allclose(weights, get('attention'), **_FLOAT32)
      for wide, bound in ((False, _FLOAT32), (True, _FLOAT64)):
        kept = _computed(name, batch, wide)['search']
        np.testing.assert_array_equal(kept.indices[:, 0, 0], get('topk_idx'))
        np.testing.assert_allclose(
          kept.scores[:, 0, 0], get('topk_scores'), **bound
        )

  @_BOTH
  @pytest.mark.quick_cases('dare')
  def test_gradients(self, name):
    file = official_state.file(name)
    module, _ = _import(name)
    for batch, wide in itertools.product(_BATCHES, (False, True)):
      bound = _FLOAT64 if wide else _FLOAT32
      grads = _named(_computed(name, batch, wide)['grads'], module)
      start = f'grad/{batch}/'
      expected = {
        key.removeprefix(start): value
        for key, value in file.items()
        if key.startswith(start)
      }
      assert len(expected) > 14
      for key, value in expected.items():
        np.testing.assert_allclose(
          grads[key][: len(value)], value, err_msg=key, **bound
        )

  @_BOTH
  def test_l2(self, name):
    _, variables = _import(name, two_outputs=True)
    l2_penalty = functools.partial(losses.l2_penalty, norms=True)
    penalty = jax.jit(l2_penalty)(variables['params'])
    np.testing.assert_allclose(
      penalty, official_state.file(name)['l2'], rtol=1e-6
    )

  @_BOTH
  @pytest.mark.quick_cases('dare')
  def test_three_steps_of_adam(self, name):
    file = official_state.file(f'{name}_adam')
    optimizer = optax.adam(0.01)
    with jax.enable_x64(True):
      module, variables = _import(name, np.float64, two_outputs=True)

      @jax.jit
      def step(variables: Any, opt_state: Any, batch: Any) -> Any:
        def compute(trained: Any) -> Any:
          loss, (_, _, stats) = _loss(module, variables, trained, batch)
          penalty = losses.l2_penalty(trained['params'], norms=True)
          return loss + 1e-6 * penalty, stats

        trained = _trained(variables)
        (loss, stats), grads = jax.value_and_grad(compute, has_aux=True)(
          trained
        )
        update, opt_state = optimizer.update(grads, opt_state)
        trained = optax.apply_updates(trained, update)
        return {**trained, 'batch_stats': stats}, opt_state, loss

      opt_state = jax.jit(optimizer.init)(_trained(variables))
      found = []
      for batch in ('full', 'pad', 'full'):
        variables, opt_state, loss = step(
          variables, opt_state, _batch(name, batch, np.float64)
        )
        found.append(float(loss))
    np.testing.assert_allclose(found, file['adam_losses'], rtol=1e-12)
    after = _named(variables, module)
    kept, rows = 0.9**3, len(official_state.file(name)['in/full/iid'])
    for mlp in ('main_mlp', 'auxiliary_mlp'):
      # We store the biased variance, torch the unbiased one.
      key = f'{mlp}.0.running_var'
      before = kept * official_state.state(name, np.float64)[key]
      after[key] = before + (after[key] - before) * rows / (rows - 1)
    checked = 0
    for key, value in file.items():
      if key == 'adam_losses':
        continue
      checked += 1
      key = key.removeprefix('adam3/')
      np.testing.assert_allclose(
        after[key][: len(value)], value, err_msg=key, **_FLOAT64
      )
    assert checked == len(after)


if __name__ == '__main__':
  absltest.main()
