"""The ranker reproduces what the published PyTorch model computed.

`official/dare.npz` and `official/twin.npz` hold numbers that the published
model (github.com/thuml/DARE, commit c72e087, torch 2.13 on CPU) printed for
fixed, wide random weights and two batches of 16 rows with 12 behaviors: `full`
without padding, `pad` with some. Weights are float32, outputs are of a float64
run; arrays of more than 1,000 numbers are stored in float32. Names are the
published model's. Left out: time rows past 12, aliases of shared tables, the
large kernels' gradients for `pad`, all but five rows of the largest for `full`.

The published head has two outputs, ours one: their difference, click minus no
click. The gradients of its two columns are ours and minus ours.
"""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import numpy as np

from dare_jax import aggregate
from dare_jax import models
from dare_jax import tables as tables_lib
from dare_jax import types
from dare_jax.training import losses
from tests.models import examples

_FOLDER = pathlib.Path(__file__).parent / 'official'
_MLPS = {'head': 'main_mlp', 'aux': 'auxiliary_mlp'}
_HIDDEN = {'head': (200, 80), 'aux': (200,)}
# Of the float64 outputs; measured: see each test.
_FLOAT32 = {'rtol': 1e-5, 'atol': 1e-5}
# Bounded by the float32 storage of the larger arrays.
_FLOAT64 = {'rtol': 2e-7, 'atol': 1e-10}
_ALL = parameterized.named_parameters(
  *(
    (f'{name}_{batch}', name, batch)
    for name in ('dare', 'twin')
    for batch in ('full', 'pad')
  )
)
_softmax = jax.jit(aggregate.masked_softmax)
_BOTH = parameterized.named_parameters(('dare', 'dare'), ('twin', 'twin'))


@functools.cache
def _file(name: str) -> dict[str, np.ndarray]:
  with np.load(_FOLDER / f'{name}.npz') as file:
    return dict(file)


def _model(name: str, **changes: Any) -> models.Ranker:
  config = json.loads(str(_file(name)['config_json']))
  options = {
    'vocab_sizes': {'item': config['item_n'], 'category': config['cate_n']},
    'attention_dim': config['item_embedding_dim'],
    'representation_dim': config['item_embedding_dim'],
    'top_k': config['top_k'],
    'exact_positions': config['max_length'],
    'hidden': _HIDDEN['head'],
    'aux_hidden': _HIDDEN['aux'],
    'norm_momentum': 0.9,
  }
  return models.build(name, **(options | changes))


def _table_names(name: str) -> dict[str, str]:
  """Our table -> the published parameter."""
  suffixes = {'attention': 'attention', 'representation': 'representation'}
  if name == 'twin':
    suffixes = {'shared': 'attention'}
  fields = {'item': 'item_id', 'category': 'category_id', 'time': 'time_id'}
  return {
    f'{field}_{suffix}': f'{official}_embedding_layer_for_{role}_of_target'
    '.weight'
    for field, official in fields.items()
    for suffix, role in suffixes.items()
  }


def _tables(name: str, kind: str) -> dict[str, np.ndarray]:
  file = _file(name)
  return {
    ours: file[f'{kind}/{official}']
    for ours, official in _table_names(name).items()
  }


def _head(name: str, head: str) -> dict[str, Any]:
  """Our parameters of a head."""
  file, mlp = _file(name), _MLPS[head]
  get = lambda i, what: file[f'sd/{mlp}.{i}.{what}']
  params: dict[str, Any] = {
    'BatchNorm_0': {'scale': get(0, 'weight'), 'bias': get(0, 'bias')}
  }
  for layer in range(len(_HIDDEN[head])):
    at = 1 + 2 * layer
    params[f'Dense_{layer}'] = {
      'kernel': get(at, 'weight').T,
      'bias': get(at, 'bias'),
    }
    params[f'PReLU_{layer}'] = {'negative_slope': get(at + 1, 'weight')[0]}
  last = len(_HIDDEN[head])
  weight, bias = (
    get(1 + 2 * last, what).astype(np.float64) for what in ('weight', 'bias')
  )
  params[f'Dense_{last}'] = {
    'kernel': (weight[0] - weight[1])[:, None],
    'bias': bias[:1] - bias[1:],
  }
  return params


def _variables(name: str, dtype: Any) -> dict[str, Any]:
  file = _file(name)
  stats = {
    head: {
      'BatchNorm_0': {
        'mean': file[f'sd/{mlp}.0.running_mean'],
        'var': file[f'sd/{mlp}.0.running_var'],
      }
    }
    for head, mlp in _MLPS.items()
  }
  variables = {
    'params': {head: _head(name, head) for head in _MLPS},
    'tables': {'encoder': _tables(name, 'sd')},
    'batch_stats': stats,
  }
  return jax.device_put(jax.tree.map(lambda x: x.astype(dtype), variables))


def _batch(name: str, batch: str, dtype: Any) -> types.Batch:
  get = lambda key: _file(name)[f'in/{batch}/{key}']
  mask = get('mask')
  fields = {'item': 'iid', 'category': 'cid'}
  shape = (len(mask), 1, 1)
  data = types.Batch(
    history=types.History(
      ids={ours: get(f'hist_{theirs}') for ours, theirs in fields.items()},
      mask=mask,
    ),
    end=np.full(shape[:2], mask.shape[1], np.int32),
    targets=types.Targets(
      ids={ours: get(theirs).reshape(shape) for ours, theirs in fields.items()},
      label=get('target')[:, 0].reshape(shape).astype(dtype),
      weight=np.ones(shape, dtype),
    ),
  )
  return jax.device_put(data)


def _loss(output: types.RankerOutput, targets: types.Targets) -> Any:
  """The published loss without l2, and its auxiliary part."""
  entropy = functools.partial(
    losses.binary_cross_entropy, labels=targets.label, epsilon=1e-8
  )
  main, aux = (
    losses.weighted_mean(entropy(logits), targets.weight)
    for logits in (output.logits, output.aux_logits)
  )
  return main + aux, aux


@functools.cache
def _step(name: str) -> Any:
  """A jitted pass in train mode, forward and backward, and one in eval mode."""
  model = _model(name)

  def step(variables: Any, data: types.Batch) -> dict[str, Any]:
    def compute(trained: Any) -> Any:
      output, updated = model.apply(
        {**variables, **trained}, data, train=True, mutable=['batch_stats']
      )
      loss, aux = _loss(output, data.targets)
      return loss, (output, aux, updated['batch_stats'])

    trained = {key: variables[key] for key in ('params', 'tables')}
    (loss, (output, aux, stats)), grads = jax.value_and_grad(
      compute, has_aux=True
    )(trained)
    return {
      'loss': loss,
      'aux_loss': aux,
      'output': output,
      'batch_stats': stats,
      'grads': grads,
      'inputs': examples.head_inputs(model, variables, data, train=True),
      'eval_logits': examples.predict(model, variables, data),
    }

  return jax.jit(step)


@functools.cache
def _trained(name: str, batch: str, wide: bool) -> dict[str, Any]:
  """What the pass gives, in float64 if `wide`."""
  dtype = np.float64 if wide else np.float32
  with jax.enable_x64(wide):
    variables, data = _variables(name, dtype), _batch(name, batch, dtype)
    return jax.tree.map(np.asarray, _step(name)(variables, data))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-logits[:, 0, 0].astype(np.float64)))


class OfficialParityTest(parameterized.TestCase):
  @_ALL
  def test_probabilities_and_losses(self, name, batch):
    file = _file(name)
    prob = lambda mode: file[f'out/{batch}/{mode}/prob'][:, 0] - 1e-8
    for wide, bound in ((False, _FLOAT32), (True, _FLOAT64)):
      found = _trained(name, batch, wide)
      np.testing.assert_allclose(
        _sigmoid(found['output'].logits), prob('train'), **bound
      )
      for key in ('loss', 'aux_loss'):
        np.testing.assert_allclose(
          found[key], file[f'out/{batch}/train/{key}'], **bound
        )
      np.testing.assert_allclose(
        _sigmoid(found['eval_logits']), prob('eval'), **bound
      )

  @_ALL
  def test_search_and_attention(self, name, batch):
    get = lambda key: _file(name)[f'out/{batch}/train/{key}']
    data = _batch(name, batch, np.float32)
    mask = np.asarray(data.history.mask)
    variables = _variables(name, np.float32)
    model = _model(name, search='all')
    full = examples.evaluate(model, variables, data).output.search
    np.testing.assert_allclose(
      np.asarray(full.scores)[:, 0, 0][mask], get('scores')[mask], **_FLOAT32
    )
    np.testing.assert_allclose(
      np.asarray(_softmax(full.scores, full.mask))[:, 0, 0],
      get('attention'),
      **_FLOAT32,
    )
    for wide, bound in ((False, _FLOAT32), (True, _FLOAT64)):
      found = _trained(name, batch, wide)
      kept = found['output'].search
      assert kept.mask.all()
      indices = kept.indices[:, 0, 0]
      np.testing.assert_array_equal(indices, get('topk_idx'))
      np.testing.assert_allclose(
        kept.scores[:, 0, 0], get('topk_scores'), **bound
      )
      inputs = {k: v[:, 0, 0] for k, v in found['inputs'].items()}
      np.testing.assert_allclose(inputs['head'], get('features'), **bound)
      width = get('pooled_full').shape[-1]
      pooled = slice(width, 2 * width)
      for head, key in (('head', 'pooled_topk'), ('aux', 'pooled_full')):
        np.testing.assert_allclose(inputs[head][:, pooled], get(key), **bound)
    # Theirs covers the whole history, with zeros where nothing was kept.
    weights = _softmax(
      _trained(name, batch, False)['output'].search.scores, kept.mask
    )
    spread = np.zeros(mask.shape)
    np.put_along_axis(spread, indices, np.asarray(weights)[:, 0, 0], axis=1)
    np.testing.assert_allclose(spread, get('soft_attention'), **_FLOAT32)

  @_ALL
  def test_gradients(self, name, batch):
    for wide, bound in ((False, _FLOAT32), (True, _FLOAT64)):
      grads = _trained(name, batch, wide)['grads']
      expected = _tables(name, f'grad/{batch}')
      chex.assert_trees_all_close(
        {k: np.asarray(v) for k, v in grads['tables']['encoder'].items()},
        expected,
        **bound,
      )
      for head in _MLPS:
        self._check_head_gradients(name, batch, head, grads['params'], bound)

  def _check_head_gradients(self, name, batch, head, grads, bound):
    file, mlp = _file(name), _MLPS[head]
    ours = {
      f'{layer}.{what}': np.asarray(grads[head][module][leaf])
      for layer, what, module, leaf in _leaves(head)
    }
    checked = 0
    for key, grad in ours.items():
      official = file.get(f'grad/{batch}/{mlp}.{key}')
      if official is None:
        continue
      checked += 1
      last = f'{1 + 2 * len(_HIDDEN[head])}.'
      if key.startswith(last):
        grad = np.stack([grad.ravel(), -grad.ravel()]).reshape(official.shape)
      elif grad.ndim == 2:
        grad = grad.T[: len(official)]
      np.testing.assert_allclose(
        grad.reshape(official.shape), official, err_msg=key, **bound
      )
    # `pad` lacks the kernels of over 4,000 numbers.
    large = len(_HIDDEN[head])
    assert checked == len(ours) - (large if batch == 'pad' else 0)

  @_ALL
  def test_running_statistics_after_a_step(self, name, batch):
    file = _file(name)
    rows = len(file[f'in/{batch}/iid'])
    for wide, bound in ((False, _FLOAT32), (True, _FLOAT64)):
      stats = _trained(name, batch, wide)['batch_stats']
      for head, mlp in _MLPS.items():
        before = {k: file[f'sd/{mlp}.0.running_{k}'] for k in ('mean', 'var')}
        ours = stats[head]['BatchNorm_0']
        np.testing.assert_allclose(
          ours['mean'], file[f'bn_after/{batch}/{mlp}.0.running_mean'], **bound
        )
        # We store the biased variance, torch the unbiased one.
        biased = ours['var'] - 0.9 * before['var'].astype(np.float64)
        unbiased = 0.9 * before['var'] + biased * rows / (rows - 1)
        np.testing.assert_allclose(
          unbiased, file[f'bn_after/{batch}/{mlp}.0.running_var'], **bound
        )

  @_BOTH
  def test_l2_is_theirs_less_norms_and_slopes(self, name):
    file = _file(name)
    kernels, rest = {}, 0.0
    for key, value in file.items():
      if not key.startswith('sd/') or 'mlp' not in key:
        continue
      if key.endswith('.weight') and value.ndim == 2:
        kernels[key] = {'kernel': value}
      elif key.endswith('.weight'):
        rest += np.sum(np.square(value, dtype=np.float64))
    ours = jax.jit(losses.l2_penalty)(kernels)
    np.testing.assert_allclose(float(ours) + rest, file['l2'], rtol=1e-5)

  @_BOTH
  def test_one_adam_step_of_the_tables(self, name):
    optimizer = tables_lib.adam(0.01).transform
    with jax.enable_x64(True):
      tables = _variables(name, np.float64)['tables']
      grads = _trained(name, 'full', True)['grads']['tables']
      step = jax.jit(lambda g, t: optimizer.update(g, optimizer.init(t), t)[0])
      update = step(grads, tables)
      after = jax.tree.map(np.add, tables, update)['encoder']
    # Stored in float32; a step is 0.01.
    chex.assert_trees_all_close(
      dict(after), _tables(name, 'adam1'), rtol=1e-6, atol=1e-7
    )


def _leaves(head: str) -> list[tuple[int, str, str, str]]:
  """Published layer and parameter -> our module and parameter."""
  leaves = [
    (0, 'weight', 'BatchNorm_0', 'scale'),
    (0, 'bias', 'BatchNorm_0', 'bias'),
  ]
  hidden = len(_HIDDEN[head])
  for layer in range(hidden + 1):
    at = 1 + 2 * layer
    leaves.append((at, 'weight', f'Dense_{layer}', 'kernel'))
    leaves.append((at, 'bias', f'Dense_{layer}', 'bias'))
    if layer < hidden:
      leaves.append((at + 1, 'weight', f'PReLU_{layer}', 'negative_slope'))
  return leaves


if __name__ == '__main__':
  absltest.main()
