"""Weights of the published code give the published code's numbers.

`official/*.npz` hold what that code computed: see `official_parity_test`, which
sets the same weights by hand. `*_adam.npz` hold its state after three steps of
Adam in float64 (learning rate 0.01, batches full, pad, full; loss + 1e-6 l2),
stored alike; of kernels of more than 4,000 numbers five rows. What no file
covers is compared with the equations, in NumPy, on random weights under the
published names.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import types as types_lib
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import models
from dare_jax import types
from dare_jax.configs import taobao_official
from dare_jax.configs import tmall_official
from dare_jax.experiments import experiment
from dare_jax.training import losses

_FOLDER = pathlib.Path(__file__).parent / 'official'
_BATCHES = ('full', 'pad')
_FLOAT32 = {'rtol': 1e-5, 'atol': 1e-5}
# Bounded by the float32 storage of the larger arrays.
_FLOAT64 = {'rtol': 2e-7, 'atol': 1e-10}
_BOTH = parameterized.named_parameters(('dare', 'dare'), ('twin', 'twin'))
_FIELDS = ('item', 'category', 'time')
_ROLES = ('attention', 'representation')
_SIDES = ('target', 'behavior')


@functools.cache
def _file(name: str) -> dict[str, np.ndarray]:
  with np.load(_FOLDER / f'{name}.npz') as file:
    return dict(file)


def _state(name: str, dtype: Any = np.float32) -> dict[str, np.ndarray]:
  return {
    key.removeprefix('sd/'): value.astype(dtype)
    for key, value in _file(name).items()
    if key.startswith('sd/')
  }


def _import(name: str, dtype: Any = np.float32, **overrides: Any) -> Any:
  top_k = json.loads(str(_file(name)['config_json']))['top_k']
  return models.from_official_state_dict(
    _state(name, dtype), name, **{'top_k': top_k, **overrides}
  )


def _to_batch(data: Mapping[str, np.ndarray], dtype: Any) -> types.Batch:
  mask = data['mask'] > 0
  shape = (len(mask), 1, 1)
  batch = types.Batch(
    history=types.History(
      ids={'item': data['hist_iid'], 'category': data['hist_cid']}, mask=mask
    ),
    end=np.full(shape[:2], mask.shape[1], np.int32),
    targets=types.Targets(
      ids={
        'item': data['iid'].reshape(shape),
        'category': data['cid'].reshape(shape),
      },
      label=data['target'][:, 0].reshape(shape).astype(dtype),
      weight=np.ones(shape, dtype),
    ),
  )
  return jax.tree.map(jnp.asarray, batch)


def _batch(name: str, batch: str, dtype: Any = np.float32) -> types.Batch:
  start = f'in/{batch}/'
  file = _file(name)
  data = {k.removeprefix(start): file[k] for k in file if k.startswith(start)}
  return _to_batch(data, dtype)


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
    named[_table(field, role, 'target')] = np.asarray(table)
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
  def test_probabilities_and_losses(self, name):
    file = _file(name)
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
    expected = _file(name)['out/pad/eval/prob'][:, 0] - 1e-8
    logits = module.apply(variables, batch).logits
    np.testing.assert_allclose(_sigmoid(logits), expected, **_FLOAT32)

  @_BOTH
  def test_batch_statistics_in_evaluation(self, name):
    module, variables = _import(name, batch_statistics=True)
    output, _ = module.apply(
      variables, _batch(name, 'full'), mutable=['batch_stats']
    )
    expected = _file(name)['out/full/train/prob'][:, 0] - 1e-8
    np.testing.assert_allclose(_sigmoid(output.logits), expected, **_FLOAT32)

  @_BOTH
  def test_scores_and_search(self, name):
    for batch in _BATCHES:
      get = lambda key, batch=batch: _file(name)[f'out/{batch}/train/{key}']
      data = _batch(name, batch)
      mask = np.asarray(data.history.mask)
      module, variables = _import(name, search='all')
      full = module.apply(variables, data).search
      scores = np.asarray(full.scores)[:, 0, 0]
      np.testing.assert_allclose(scores[mask], get('scores')[mask], **_FLOAT32)
      weights = aggregate.masked_softmax(full.scores, full.mask)[:, 0, 0]
      np.testing.assert_allclose(weights, get('attention'), **_FLOAT32)
      for wide, bound in ((False, _FLOAT32), (True, _FLOAT64)):
        kept = _computed(name, batch, wide)['search']
        np.testing.assert_array_equal(kept.indices[:, 0, 0], get('topk_idx'))
        np.testing.assert_allclose(
          kept.scores[:, 0, 0], get('topk_scores'), **bound
        )

  @_BOTH
  def test_gradients(self, name):
    file = _file(name)
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
    penalty = losses.l2_penalty(variables['params'], norms=True)
    np.testing.assert_allclose(penalty, _file(name)['l2'], rtol=1e-6)

  @_BOTH
  def test_three_steps_of_adam(self, name):
    file = _file(f'{name}_adam')
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

      opt_state = optimizer.init(_trained(variables))
      found = []
      for batch in ('full', 'pad', 'full'):
        variables, opt_state, loss = step(
          variables, opt_state, _batch(name, batch, np.float64)
        )
        found.append(float(loss))
    np.testing.assert_allclose(found, file['adam_losses'], rtol=1e-12)
    after = _named(variables, module)
    kept, rows = 0.9**3, len(_file(name)['in/full/iid'])
    for mlp in ('main_mlp', 'auxiliary_mlp'):
      # We store the biased variance, torch the unbiased one.
      key = f'{mlp}.0.running_var'
      before = kept * _state(name, np.float64)[key]
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


def _table(field: str, role: str, side: str) -> str:
  return f'{field}_id_embedding_layer_for_{role}_of_{side}.weight'


# Uses that share: (role, side) -> the use whose array theirs is.
_TARGET = {(r, s): (r, 'target') for r in _ROLES for s in _SIDES}
_OWN = {(r, s): (r, s) for r in _ROLES for s in _SIDES}
_ONE = dict.fromkeys(_OWN, ('attention', 'target'))
_THREE = _OWN | {('representation', 'behavior'): ('representation', 'target')}
_EQUAL = {role: {'item': 4, 'category': 3, 'time': 2} for role in _ROLES}
_UNEQUAL = {
  'attention': {'item': 2, 'category': 3, 'time': 1},
  'representation': {'item': 5, 'category': 4, 'time': 3},
}
_ROWS = {'item': 30, 'category': 5, 'time': 140}
_HIDDEN = {'main_mlp': (7, 5), 'auxiliary_mlp': (6,)}
_LENGTH = 7
_TOP_K = 3


def _random_state(
  shared: Mapping[Any, Any],
  dims: Mapping[str, Mapping[str, int]],
  *,
  time: bool = True,
  parts: int = 3,
  per_field: bool = False,
  joint: Mapping[Any, Any] | None = None,
  network: bool = False,
) -> dict[str, np.ndarray]:
  """A state dict, aliases included, as the published code would save it."""
  rng = np.random.default_rng(3)
  state: dict[str, np.ndarray] = {}
  for field in _FIELDS:
    for use, source in shared.items():
      shape = (_ROWS[field], dims[use[0]][field])
      name = _table(field, *use)
      if use == source:
        state[name] = rng.normal(size=shape)
      else:
        state[name] = state[_table(field, *source)]
  used = _FIELDS if time else _FIELDS[:2]
  widths = {role: sum(dims[role][field] for field in used) for role in _ROLES}

  def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> None:
    scale = 1 / math.sqrt(inputs)
    state[f'{name}.weight'] = scale * rng.normal(size=(outputs, inputs))
    if bias:
      state[f'{name}.bias'] = 0.3 * rng.normal(size=outputs)

  for role, side in _OWN:
    if per_field:
      for field in _FIELDS:
        width = dims[role][field]
        linear(f'mlp_for_{field}_{role}_of_{side}', width, width, bias=False)
    if joint is not None:
      name = f'mlp_for_{role}_of_{side}'
      linear(name, widths[role], widths[role])
      if joint[role, side] != (role, side):
        of_target = f'mlp_for_{role}_of_target'
        for what in ('weight', 'bias'):
          state[f'{name}.{what}'] = state[f'{of_target}.{what}']
  if network:
    linear('attention_model.main_model.0', 36, 4 * widths['attention'])
    state['attention_model.main_model.1.weight'] = np.array([0.3])
    linear('attention_model.main_model.2', 1, 36)
  for mlp, hidden in _HIDDEN.items():
    width = parts * widths['representation']
    state[f'{mlp}.0.weight'] = np.exp(0.3 * rng.normal(size=width))
    state[f'{mlp}.0.bias'] = 0.3 * rng.normal(size=width)
    state[f'{mlp}.0.running_mean'] = 0.3 * rng.normal(size=width)
    state[f'{mlp}.0.running_var'] = np.exp(0.3 * rng.normal(size=width))
    state[f'{mlp}.0.num_batches_tracked'] = np.array(17)
    for layer, outputs in enumerate((*hidden, 2)):
      linear(f'{mlp}.{1 + 2 * layer}', outputs, width)
      if layer < len(hidden):
        state[f'{mlp}.{2 + 2 * layer}.weight'] = rng.normal(size=1)
      width = outputs
  return state


def _random_data(num_visible: tuple[int, ...]) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(5)
  rows = len(num_visible)
  first = _LENGTH - np.array(num_visible)
  mask = (np.arange(_LENGTH) >= first[:, None]).astype(int)
  data = {'mask': mask, 'target': np.eye(2)[rng.integers(0, 2, rows)]}
  for name, field in (('iid', 'item'), ('cid', 'category')):
    data[name] = rng.integers(1, _ROWS[field], rows)
    data[f'hist_{name}'] = rng.integers(1, _ROWS[field], mask.shape) * mask
  return data


class _Published:
  """The published models by their equations, a target at a time."""

  def __init__(
    self,
    state: Mapping[str, np.ndarray],
    *,
    time: bool = True,
    target_aware: bool = True,
    hard: bool = False,
  ) -> None:
    self.state = state
    self.fields = _FIELDS if time else _FIELDS[:2]
    self.target_aware = target_aware
    self.hard = hard

  def logits(
    self, data: Mapping[str, np.ndarray], train: bool
  ) -> tuple[np.ndarray, np.ndarray]:
    """Click minus no click of the two heads."""
    pairs = [self.features(data, row) for row in range(len(data['iid']))]
    main, aux = (np.stack(x) for x in zip(*pairs, strict=True))
    return (
      self.head('main_mlp', main, train),
      self.head('auxiliary_mlp', aux, train),
    )

  def vector(self, role: str, side: str, ids: tuple[int, ...]) -> list[Any]:
    """The vectors of item, category, time."""
    vectors = []
    for field, index in zip(self.fields, ids, strict=False):
      vector = self.state[_table(field, role, side)][index]
      weight = self.state.get(f'mlp_for_{field}_{role}_of_{side}.weight')
      vectors.append(vector if weight is None else weight @ vector)
    joint = f'mlp_for_{role}_of_{side}'
    if f'{joint}.weight' in self.state:
      whole = np.concatenate(vectors)
      whole = (
        self.state[f'{joint}.weight'] @ whole + self.state[f'{joint}.bias']
      )
      vectors = np.split(whole, np.cumsum([len(x) for x in vectors])[:-1])
    return vectors

  def score(self, query: list[Any], key: list[Any]) -> float:
    q, k = np.concatenate(query[:2]), np.concatenate(key[:2])
    net = 'attention_model.main_model'
    if f'{net}.0.weight' in self.state:
      x = np.concatenate([q, k, q - k, q * k])
      return self.dense(f'{net}.2', self.hidden(net, 0, x))[0] / len(q)
    if self.hard:
      q, k = np.concatenate(query), np.concatenate(key)
    time = query[2] @ key[2] / math.sqrt(len(key[2]))
    return q @ k / math.sqrt(len(q)) + time

  def keep(
    self, data: Mapping[str, np.ndarray], row: int, scores: list[float]
  ) -> list[int]:
    valid = [i for i in range(_LENGTH) if data['mask'][row, i]]
    if not self.hard:
      return sorted(valid, key=lambda i: -scores[i])[:_TOP_K]
    same = [i for i in valid if data['hist_cid'][row, i] == data['cid'][row]]
    kept = same[-_TOP_K:]
    for i in reversed(range(_LENGTH)):
      if len(kept) < _TOP_K and i not in kept:
        kept.append(i)
    return kept

  def features(self, data: Mapping[str, np.ndarray], row: int) -> Any:
    target = (data['iid'][row], data['cid'][row], 0)
    query = self.vector('attention', 'target', target)
    behaviors = [
      (data['hist_iid'][row, i], data['hist_cid'][row, i], _LENGTH - i)
      for i in range(_LENGTH)
    ]
    scores = [
      self.score(query, self.vector('attention', 'behavior', ids))
      for ids in behaviors
    ]
    kept = self.keep(data, row, scores)
    valid = [i for i in range(_LENGTH) if data['mask'][row, i]]
    target = np.concatenate(self.vector('representation', 'target', target))
    features = []
    for chosen in (kept, kept if self.hard else valid):
      weights = np.exp([scores[i] for i in chosen])
      pooled = sum(
        weight
        / sum(weights)
        * np.concatenate(
          self.vector('representation', 'behavior', behaviors[i])
        )
        for weight, i in zip(weights, chosen, strict=True)
      )
      product = [target * pooled] if self.target_aware else []
      features.append(np.concatenate([target, pooled, *product]))
    return features

  def dense(self, name: str, x: np.ndarray) -> np.ndarray:
    return x @ self.state[f'{name}.weight'].T + self.state[f'{name}.bias']

  def hidden(self, mlp: str, layer: int, x: np.ndarray) -> np.ndarray:
    x = self.dense(f'{mlp}.{layer}', x)
    return np.where(x > 0, x, self.state[f'{mlp}.{layer + 1}.weight'] * x)

  def head(self, mlp: str, x: np.ndarray, train: bool) -> np.ndarray:
    norm = lambda what: self.state[f'{mlp}.0.{what}']
    mean, var = norm('running_mean'), norm('running_var')
    if train:
      mean, var = x.mean(0), x.var(0)
    x = (x - mean) / np.sqrt(var + 1e-5) * norm('weight') + norm('bias')
    layer = 1
    for _ in _HIDDEN[mlp]:
      x = self.hidden(mlp, layer, x)
      layer += 2
    x = self.dense(f'{mlp}.{layer}', x)
    return x[:, 0] - x[:, 1]


_JOINT_OWN = {'joint': _OWN}
_JOINT_TIED = {'joint': _TARGET}
# Name, preset, sharing, widths, more of the state, more of the equations, plan.
_VARIANTS: tuple[Any, ...] = (
  ('dare', 'dare', _TARGET, _UNEQUAL, {}, {}, 'decoupled'),
  ('three', 'twin_3e', _THREE, _UNEQUAL, {}, {}, 'three'),
  ('four', 'twin_4e', _OWN, _UNEQUAL, {}, {}, 'four'),
  ('twin', 'twin', _ONE, _EQUAL, {}, {}, 'shared'),
  (
    'no_tr',
    'twin_no_tr',
    _ONE,
    _EQUAL,
    {'parts': 2},
    {'target_aware': False},
    'shared',
  ),
  (
    'per_field',
    'twin_proj',
    _ONE,
    _EQUAL,
    {'per_field': True},
    {},
    'projected',
  ),
  ('concat', 'twin_proj', _ONE, _EQUAL, _JOINT_OWN, {}, 'projected_concat'),
  (
    'concat_tied',
    'twin_proj',
    _ONE,
    _EQUAL,
    _JOINT_TIED,
    {},
    'projected_concat_tied',
  ),
  ('hard', 'twin_hard', _ONE, _EQUAL, {}, {'hard': True}, 'shared'),
  (
    'din',
    'din',
    _ONE,
    _EQUAL,
    {'time': False, 'network': True},
    {'time': False},
    'shared',
  ),
)


class VariantsTest(parameterized.TestCase):
  @parameterized.named_parameters(*_VARIANTS)
  def test_equals_the_equations(
    self, preset, shared, dims, state_options, options, plan
  ):
    state = _random_state(shared, dims, **state_options)
    data = _random_data((7, 7, 5, 4, 3, 6, 7, 3))
    self._check(preset, state, data, plan, options)

  def test_hard_search_with_padding(self):
    state = _random_state(_ONE, _EQUAL)
    data = _random_data((7, 1, 5, 2, 3, 6, 1, 2))
    self._check('twin_hard', state, data, 'shared', {'hard': True})

  def _check(self, preset, state, data, plan, options, aux=True):
    reference = _Published(state, **options)
    with jax.enable_x64(True):
      for changes in ({}, {'two_outputs': True}):
        module, variables = models.from_official_state_dict(
          state, preset, top_k=_TOP_K, **changes
        )
        assert module.config.plan == plan
        batch = _to_batch(data, np.float64)
        output, _ = module.apply(
          variables, batch, train=True, mutable=['batch_stats']
        )
        logits = module.apply(variables, batch).logits
        expected, expected_aux = reference.logits(data, train=True)
        pairs = [
          (logits, reference.logits(data, train=False)[0]),
          (output.logits, expected),
        ]
        if aux:
          pairs.append((output.aux_logits, expected_aux))
        for found, expected in pairs:
          found = np.asarray(found)[:, 0, 0]
          np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# Of the official configs, what no weights tell: initial values, statistics of
# the batch in evaluation, a second output, padding that fills up soft search.
_RECIPE = {
  'two_outputs': True,
  'batch_statistics': True,
  'keep_padding': True,
  'projection_init': 'official',
  'attention_init': 0.01,
  'representation_init': 0.01,
}


def _of_config(
  module: types_lib.ModuleType, preset: str, like: models.Ranker, **changes: Any
) -> models.Ranker:
  """The model of an official config, its sizes those of another model."""
  config = module.get_config(f'model={preset}')
  sizes = {'exact_positions': like.config.exact_positions, 'top_k': _TOP_K}
  for role, field in itertools.product(_ROLES, like.config.features):
    sizes[f'{role}_dims.{field.name}'] = field.dim(role)
  if not like.config.use_time:  # The size of a table that is not there.
    for role in _ROLES:
      sizes[f'{role}_dims.time'] = like.config.time.dim(role)
  sizes |= {n: getattr(like.config, n) for n in ('hidden', 'aux_hidden')}
  for name, value in (sizes | changes).items():
    config.update_from_flattened_dict({f'model.{name}': value})
  return experiment.build_options(
    config,
    {feature.name: feature.vocab_size for feature in like.config.content},
    num_clusters=like.config.num_clusters,
  )


class ConfigsTest(parameterized.TestCase):
  """What an official config trains is what the importer builds."""

  @parameterized.named_parameters(*_VARIANTS)
  def test_every_model(self, preset, shared, dims, state_options, _, plan):
    state = _random_state(shared, dims, **state_options)
    imported, _ = models.from_official_state_dict(
      state, preset, top_k=_TOP_K, **_RECIPE
    )
    is_joint = 'joint' in state_options  # Projections of another kind.
    changes = {'plan': plan} if is_joint else {}
    for module in (taobao_official, tmall_official):
      found = _of_config(module, preset, imported, **changes)
      assert found.config == imported.config

  @parameterized.parameters('dare', 'twin', 'sdim')
  def test_hard_search_by_hand(self, preset):
    state = _random_state(_ONE, _EQUAL)
    hard = models.from_official_state_dict(state, 'twin', search='category')[0]
    for module in (taobao_official, tmall_official):
      found = _of_config(module, preset, hard, search='category').config
      assert (found.scorer, found.keep_padding) == (hard.config.scorer, True)
      corrected = _of_config(
        module, preset, hard, search='category', scorer='dot'
      )
      assert corrected.config.scorer == 'dot'

  def test_hard_search_without_auxiliary_head(self):
    """`sim_hard` is not published, but its parts are."""
    state = _random_state(_ONE, _EQUAL)
    without = {k: v for k, v in state.items() if 'auxiliary' not in k}
    imported, _ = models.from_official_state_dict(
      without, 'twin_hard', top_k=_TOP_K, **_RECIPE
    )
    for module in (taobao_official, tmall_official):
      found = _of_config(module, 'sim_hard', imported)
      assert found.config == imported.config

  def test_what_is_not_published_is_ours(self):
    tested = {variant[1] for variant in _VARIANTS}
    ours = {'din_full', 'sim_soft', 'eta', 'sdim', 'twin_v2'}
    assert {*tested, *ours, 'sim_hard'} == set(models.PRESETS)
    for preset, module in itertools.product(
      ours, (taobao_official, tmall_official)
    ):
      config = module.get_config(f'model={preset}')
      found = experiment.build_options(config, {'item': 9, 'category': 9})
      own = {'scorer': 'dot', 'keep_padding': True} | models.PRESETS[preset]
      assert own.items() <= dataclasses.asdict(found.config).items()


class TablesTest(parameterized.TestCase):
  def test_rows_keep_their_numbers(self):
    state = _random_state(_TARGET, _UNEQUAL)
    _, variables = models.from_official_state_dict(state, 'dare')
    tables = variables['tables']['encoder']
    assert len(tables) == 6
    for field, role in itertools.product(_FIELDS, _ROLES):
      np.testing.assert_array_equal(
        tables[f'{field}_{role}'],
        state[_table(field, role, 'behavior')].astype(np.float32),
      )

  @parameterized.named_parameters(
    ('published', 2000, 1871),
    ('some_to_spare', 140, 11),
    ('one_to_spare', 130, 1),
    ('none_to_spare', 129, 128),
    ('extract', 13, 12),
  )
  def test_positions_read_the_row_of_their_distance(self, rows, exact):
    state = _random_state(_ONE, _EQUAL)
    for use in _OWN:
      state[_table('time', *use)] = np.zeros((rows, 2))
    module, variables = models.from_official_state_dict(state, 'twin')
    config = module.config
    assert config.exact_positions == exact
    assert config.time.vocab_size == rows
    assert variables['tables']['encoder']['time_shared'].shape == (rows, 2)
    np.testing.assert_array_equal(
      embeddings.position_ids(exact, exact), np.arange(exact + 1)
    )
    if rows > 129:
      assert embeddings.num_position_ids(exact) == rows

  def test_sizes_are_those_of_the_arrays(self):
    state = _random_state(_TARGET, _UNEQUAL)
    module, variables = models.from_official_state_dict(
      state, 'dare', top_k=_TOP_K
    )
    config = module.config
    assert (config.hidden, config.aux_hidden) == ((7, 5), (6,))
    for feature in (*config.content, config.time):
      assert feature.vocab_size == _ROWS[feature.name]
      for role in _ROLES:
        assert feature.dim(role) == _UNEQUAL[role][feature.name]
    batch = _to_batch(_random_data((7, 5)), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
    assert jax.tree.structure(shapes) == jax.tree.structure(variables)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)


class OptionsTest(parameterized.TestCase):
  def test_names_of_data_parallel(self):
    state = _state('dare')
    plain = models.from_official_state_dict(state, 'dare')
    wrapped = {f'module.{name}': value for name, value in state.items()}
    found = models.from_official_state_dict(wrapped, 'dare')
    assert found[0].config == plain[0].config
    jax.tree.map(np.testing.assert_array_equal, found[1], plain[1])

  def test_hard_search_as_published_or_corrected(self):
    state = _random_state(_ONE, _EQUAL)
    build = functools.partial(models.from_official_state_dict, state)
    config = build('twin_hard')[0].config
    assert (config.scorer, config.keep_padding) == ('dot_time_twice', True)
    assert build('twin', search='category')[0].config == config
    config = build('twin_hard', scorer='dot', keep_padding=False)[0].config
    assert (config.scorer, config.keep_padding) == ('dot', False)
    assert not build('twin')[0].config.keep_padding

  def test_none_is_no_override(self):
    state = _random_state(_ONE, _EQUAL)
    build = functools.partial(models.from_official_state_dict, state)
    found = build('twin_hard', scorer=None, plan=None, top_k=None)
    assert found[0].config == build('twin_hard')[0].config

  def test_without_auxiliary_head(self):
    state = _random_state(_TARGET, _EQUAL)
    dropped = models.from_official_state_dict(state, 'dare', aux_head=False)
    without = {k: v for k, v in state.items() if 'auxiliary' not in k}
    found = models.from_official_state_dict(without, 'dare')
    for module, variables in (dropped, found):
      assert not module.config.aux_head
      assert 'aux' not in variables['params']

  def test_a_shared_table_for_each_role(self):
    state = _random_state(_ONE, _EQUAL)
    data = _to_batch(_random_data((7, 5, 4)), np.float32)
    logits = []
    for plan in ('shared', 'decoupled', 'four'):
      module, variables = models.from_official_state_dict(
        state, 'twin', plan=plan, top_k=_TOP_K
      )
      logits.append(module.apply(variables, data).logits)
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])

  def test_tied_maps_apart(self):
    state = _random_state(_ONE, _EQUAL, **_JOINT_TIED)
    module, variables = models.from_official_state_dict(
      state, 'twin_proj', plan='projected_concat'
    )
    assert module.config.plan == 'projected_concat'
    assert len(variables['params']['encoder']) == 4


class ErrorsTest(parameterized.TestCase):
  def _raises(self, message, state, model, **overrides):
    with self.assertRaisesRegex(ValueError, message):
      models.from_official_state_dict(state, model, **overrides)

  @parameterized.named_parameters(
    ('dense_bias', 'main_mlp.3.bias', r'expected \[5\]'),
    ('statistics', 'auxiliary_mlp.0.running_var', r'expected \[36\]'),
    (
      'table',
      'item_id_embedding_layer_for_representation_of_behavior.weight',
      r'expected \[30, 5\]',
    ),
  )
  def test_missing(self, key, expected):
    state = _random_state(_OWN, _UNEQUAL)
    del state[key]
    self._raises(f'lacks {key!r}: {expected}', state, 'twin_4e')

  def test_missing_scores(self):
    state = _random_state(_ONE, _EQUAL, time=False)
    self._raises(
      r"lacks 'attention_model.main_model.0.weight': expected \[36, 28\]",
      state,
      'din',
    )

  def test_missing_maps(self):
    state = _random_state(_ONE, _EQUAL)
    self._raises(
      "lacks 'mlp_for_item_attention_of_target.weight'", state, 'twin_proj'
    )

  def test_missing_head(self):
    state = _random_state(_ONE, _EQUAL)
    state = {k: v for k, v in state.items() if not k.startswith('main_mlp')}
    self._raises('lacks .* main_mlp.1.weight', state, 'twin')

  @parameterized.named_parameters(
    ('another_model', 'mlp_for_item_attention_of_target.weight', (4, 4)),
    ('typing', 'main_mlp.0.weigth', (27,)),
  )
  def test_unexpected(self, key, shape):
    state = _random_state(_ONE, _EQUAL) | {key: np.zeros(shape)}
    self._raises(f'unexpected {key!r}', state, 'twin')

  @parameterized.named_parameters(
    ('norm', 'main_mlp.0.weight', (18,), r'\[27\]'),
    ('slope', 'main_mlp.2.weight', (7,), r'\[1\]'),
    ('outputs', 'main_mlp.5.weight', (1, 5), r'\[2, 5\]'),
    (
      'table',
      'item_id_embedding_layer_for_attention_of_target.weight',
      (30,),
      r'\[rows, attention_dim\]',
    ),
  )
  def test_misshaped(self, key, shape, expected):
    state = _random_state(_ONE, _EQUAL) | {key: np.zeros(shape)}
    self._raises(f'{key!r} has shape .*: expected {expected}', state, 'twin')

  def test_tables_of_another_model(self):
    state = _random_state(_TARGET, _EQUAL)
    self._raises("representation.*differs from 'item_id_emb", state, 'twin')

  def test_features_of_another_model(self):
    state = _random_state(_ONE, _EQUAL, parts=2)
    self._raises(
      r"'main_mlp.0.weight' has shape \[18\]: expected \[27\]", state, 'twin'
    )

  def test_choices_without_weights(self):
    state = _random_state(_ONE, _EQUAL)
    self._raises(
      'no parameter for .*directions', state, 'twin', search='simhash'
    )

  @parameterized.named_parameters(
    ('not_published', 'eta', {}, "'eta': expected one of dare, din"),
    ('size', 'twin', {'hidden': (3,)}, 'hidden is read from the arrays'),
    ('option', 'twin', {'topk': 3}, "did you mean 'top_k'"),
    ('plan', 'twin', {'plan': 'sharde'}, "did you mean 'shared'"),
  )
  def test_bad_calls(self, model, overrides, message):
    self._raises(message, _random_state(_ONE, _EQUAL), model, **overrides)


if __name__ == '__main__':
  absltest.main()
