"""Import of weights that the published PyTorch code trained.

The code is at github.com/thuml/DARE. Its parameters' names and shapes are read
here; what its models compute is that of our presets. Two things differ there
and are followed: hard search counts time twice and lets padding take part.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from dare_jax import embeddings
from dare_jax import types
from dare_jax.models import presets
from dare_jax.models import ranker
from dare_jax.models import ranker_config
from dare_jax.models.official import recipe
from dare_jax.models.official import state_dict

# The presets that the published code has.
_MODELS = (
  'dare',
  'din',
  'twin',
  'twin_hard',
  'twin_no_tr',
  'twin_proj',
  'twin_3e',
  'twin_4e',
)
_READ = frozenset(
  (
    'vocab_sizes',
    'attention_dim',
    'attention_dims',
    'representation_dim',
    'representation_dims',
    'context',
    'context_dim',
    'hidden',
    'aux_hidden',
  )
)
_FIELDS = ('item', 'category', 'time')
_HEADS = {'head': 'main_mlp', 'aux': 'auxiliary_mlp'}
_JOINT = 'mlp_for_attention_of_target.weight'
_NETWORK = 'attention_model.main_model'
_NETWORK_WIDTH = 36
_OUTPUTS = 2
_Variables = dict[str, Any]


def from_official_state_dict(
  state: Mapping[str, Any], model: str, **overrides: Any
) -> tuple[ranker.Ranker, _Variables]:
  """Returns a ranker and its variables from the published code's weights.

  Rows, widths, hidden layers, and whether there is an auxiliary head are read
  from the arrays, and so is which kind of projections `twin_proj` has. Rows
  keep their numbers: ids are those of the published data files. The two
  outputs of a head become one, click minus no click; their dtype is kept.

  Each distance has a time id of its own as long as the table has 128 rows
  after it (for 2000 rows, up to 1871); in a table of up to 129 rows, all have.

  >>> state = dict(np.load('dare.npz'))  # doctest: +SKIP
  >>> module, variables = from_official_state_dict(  # doctest: +SKIP
  ...     state, 'dare', top_k=20)

  Args:
    state: parameter or buffer name -> array, as `torch.nn.Module.state_dict`
      names them; a `module.` in front is ignored. Of tensors that are one
      under several names, one name is enough.
    model: a preset that the published code has; its models are not told apart
      by names.
    **overrides: fields of `RankerConfig`, but for what the arrays tell.
      They win: `two_outputs=True` keeps both outputs, `keep_padding=False` and
      `scorer='dot'` correct hard search, `aux_head=False` drops that head,
      `plan='decoupled'` gives each role a copy of a shared table.

  Raises:
    ValueError: a key is missing, unexpected or has the wrong shape; tensors
      that should be one differ; a choice that the weights do not fit.
  """
  if model not in _MODELS:
    raise ValueError(
      f'no published weights of model {model!r}: expected one of'
      f' {", ".join(sorted(_MODELS))}.'
    )
  overrides = {k: v for k, v in overrides.items() if v is not None}
  fixed = sorted(_READ & overrides.keys())
  if fixed:
    raise ValueError(f'{fixed[0]} is read from the arrays; leave it out.')
  source = state_dict.StateDict(state)
  options = recipe.options(model, overrides)
  options.setdefault('aux_head', source.has(f'{_HEADS["aux"]}.'))
  options.setdefault('norm_momentum', recipe.NORM_MOMENTUM)
  if options['plan'] == 'projected' and 'plan' not in overrides:
    options['plan'] = _projected_plan(source)
  module = _build(source, model, options)
  config = module.config
  tables, params = _encoder(source, config)
  if config.scorer == 'network':
    params['scorer'] = _network(source, config)
  stats = {}
  for head, mlp in _HEADS.items():
    if head == 'head' or config.aux_head:
      params[head], stats[head] = _head(source, mlp, config)
    else:
      source.ignore(f'{mlp}.')
  source.finish()
  variables = jax.device_put(
    {'params': params, 'tables': {'encoder': tables}, 'batch_stats': stats}
  )
  _check_complete(module, variables)
  return module, variables


def _table_name(field: str, role: str, side: str) -> str:
  return f'{field}_id_embedding_layer_for_{role}_of_{side}.weight'


def _map_name(field: str | None, role: str, side: str) -> str:
  """Name of a projection; of all fields together if there is no field."""
  what = role if field is None else f'{field}_{role}'
  return f'mlp_for_{what}_of_{side}.weight'


def _projected_plan(source: state_dict.StateDict) -> str:
  """Returns the plan with the projections that are there."""
  joint = source.has(_JOINT)
  pairs = [
    [_map_name(field, role, side) for side in ('target', 'behavior')]
    for field in ((None,) if joint else _FIELDS)
    for role in ('attention', 'representation')
  ]
  tied = source.has('mlp_for_') and all(source.same(*pair) for pair in pairs)
  return f'projected{"_concat" * joint}{"_tied" * tied}'


def _build(
  source: state_dict.StateDict, model: str, options: Mapping[str, Any]
) -> ranker.Ranker:
  """Returns the ranker whose sizes are those of the arrays."""
  if options['plan'] not in embeddings.PLANS:
    presets.build(model, vocab_sizes={}, plan=options['plan'])  # Raises.
  plan = embeddings.PLANS[options['plan']]
  rows: dict[str, int] = {}
  dims: dict[str, dict[str, int]] = {'attention': {}, 'representation': {}}
  for field in _FIELDS:
    if field == 'time' and not options.get('use_time', True):
      source.ignore('time_id_embedding_layer')
      source.ignore('mlp_for_time_')
      continue
    for suffix in plan.suffixes:
      uses = _uses(plan, suffix)
      roles = list(dict.fromkeys(role for role, _ in uses))
      shape = source.take(
        [_table_name(field, *use) for use in uses],
        (
          rows.get(field, 'rows'),
          dims[roles[0]].get(field, f'{roles[0]}_dim'),
        ),
      ).shape
      rows[field] = shape[0]
      for role in roles:
        dims[role][field] = shape[1]
  time_rows = rows.pop('time', 0)
  if time_rows:
    spare = embeddings.num_position_ids(0) - 1
    ids = time_rows - (spare if time_rows > 1 + spare else 0)
    options = {'exact_positions': max(1, ids - 1), **options}
  module = presets.build(
    model,
    vocab_sizes=rows,
    attention_dims=dims['attention'],
    representation_dims=dims['representation'],
    **{**options, **_widths(source, options)},
  )
  if not time_rows:
    return module
  config = module.config
  time = dataclasses.replace(config.time, vocab_size=time_rows)
  return ranker.Ranker(dataclasses.replace(config, time=time))


def _widths(
  source: state_dict.StateDict, options: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
  """Returns the widths of the heads' hidden layers."""
  names = {'hidden': 'head'}
  if options['aux_head']:
    names['aux_hidden'] = 'aux'
  widths = {}
  for option, head in names.items():
    mlp = _HEADS[head]
    layers = source.layers(mlp)
    if not layers or layers[0][0] != 1:
      raise ValueError(
        f'state dict lacks a two-dimensional {mlp}.1.weight: expected batch'
        f' normalisation at {mlp}.0, dense layers at {mlp}.1, {mlp}.3, ...'
      )
    widths[option] = tuple(width for _, width in layers[:-1])
  return widths


def _uses(plan: embeddings.Plan, suffix: str) -> list[tuple[str, str]]:
  return [use for use, name in plan.table_of.items() if name == suffix]


def _encoder(
  source: state_dict.StateDict, config: ranker_config.RankerConfig
) -> tuple[_Variables, _Variables]:
  """Returns tables, and the projections among the parameters."""
  plan = embeddings.PLANS[config.plan]
  tables = {
    f'{feature.name}_{suffix}': source.take(
      [_table_name(feature.name, *use) for use in _uses(plan, suffix)],
      (feature.vocab_size, feature.dim(plan.role_of(suffix))),
    )
    for feature in config.features
    for suffix in plan.suffixes
  }
  shape = plan.projection
  if shape is None:
    return tables, {}
  if shape.hidden:
    raise ValueError(
      f'plan {plan.name!r}: its maps have no bias, the published ones do.'
    )
  maps: _Variables = {}
  for name, uses in _group(
    (shape.name(*use), use) for use in plan.table_of
  ).items():
    role = uses[0][0]
    if shape.per_field:
      for feature in config.features:
        width = feature.dim(role)
        kernel = source.take(
          [_map_name(feature.name, *use) for use in uses], (width, width)
        )
        maps[f'projection_{feature.name}_{name}'] = {
          'Dense_0': {'kernel': kernel.T}
        }
    else:
      width = sum(feature.dim(role) for feature in config.features)
      weights = [_map_name(None, *use) for use in uses]
      biases = [f'{weight.removesuffix("weight")}bias' for weight in weights]
      maps[f'joint_projection_{name}'] = {
        'kernel': source.take(weights, (width, width)).T,
        'bias': source.take(biases, (width,)),
      }
  return tables, {'encoder': maps}


def _group(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
  groups: dict[str, list[Any]] = {}
  for name, value in pairs:
    groups.setdefault(name, []).append(value)
  return groups


def _network(
  source: state_dict.StateDict, config: ranker_config.RankerConfig
) -> _Variables:
  """Returns the parameters of DIN's scores."""
  width = sum(feature.attention_dim for feature in config.content)
  get = lambda name, *shape: source.one(f'{_NETWORK}.{name}', *shape)
  return {
    'hidden': {
      'kernel': get('0.weight', _NETWORK_WIDTH, 4 * width).T,
      'bias': get('0.bias', _NETWORK_WIDTH),
    },
    'slope': {'negative_slope': get('1.weight', 1)[0]},
    'score': {
      'kernel': get('2.weight', 1, _NETWORK_WIDTH).T,
      'bias': get('2.bias', 1),
    },
  }


def _head(
  source: state_dict.StateDict, mlp: str, config: ranker_config.RankerConfig
) -> tuple[_Variables, _Variables]:
  """Returns the parameters and the running statistics of a head."""
  get = lambda layer, what, *shape: source.one(f'{mlp}.{layer}.{what}', *shape)
  hidden = config.hidden if mlp == _HEADS['head'] else config.aux_hidden
  width = sum(feature.representation_dim for feature in config.content)
  if config.use_time:
    width += config.time.representation_dim
  if not config.only_product:
    width *= 3 if config.target_aware else 2
  norm = {'scale': get(0, 'weight', width), 'bias': get(0, 'bias', width)}
  params: _Variables = {'BatchNorm_0': norm}
  stats = {
    'BatchNorm_0': {
      'mean': get(0, 'running_mean', width),
      'var': get(0, 'running_var', width),
    }
  }
  for index, outputs in enumerate((*hidden, _OUTPUTS)):
    layer = 1 + 2 * index
    kernel = get(layer, 'weight', outputs, width).T
    bias = get(layer, 'bias', outputs)
    if index < len(hidden):
      slope = get(layer + 1, 'weight', 1)[0]
      params[f'PReLU_{index}'] = {'negative_slope': slope}
    elif not config.two_outputs:
      kernel = kernel[:, :1] - kernel[:, 1:]
      bias = bias[:1] - bias[1:]
    params[f'Dense_{index}'] = {'kernel': kernel, 'bias': bias}
    width = outputs
  return params, stats


def _check_complete(module: ranker.Ranker, variables: _Variables) -> None:
  """Raises ValueError if the choices need what the weights have not."""
  config = module.config
  one = np.zeros((1, 1, 1), np.float32)
  behaviors = np.zeros((1, config.top_k), np.int32)
  names = [feature.name for feature in config.content]
  batch = types.Batch(
    history=types.History(
      ids=dict.fromkeys(names, behaviors), mask=behaviors == 0
    ),
    end=np.full((1, 1), config.top_k, np.int32),
    targets=types.Targets(
      ids=dict.fromkeys(names, one.astype(np.int32)), label=one, weight=one
    ),
  )
  expected = jax.eval_shape(module.init, jax.random.key(0), batch)
  found = jax.tree_util.tree_leaves_with_path(variables)
  shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in found}
  for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
    name = jax.tree_util.keystr(path)
    if shapes.get(name) != leaf.shape:
      raise ValueError(
        f'the published code has no parameter for {name} {list(leaf.shape)}'
        f' (search={config.search!r}, scorer={config.scorer!r},'
        f' aggregation={config.aggregation!r}).'
      )
