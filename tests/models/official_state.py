"""Weights under the published names: of files, and random ones."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import math
import pathlib
from typing import Any

import jax
import numpy as np

from dare_jax import types

_FOLDER = pathlib.Path(__file__).parent / 'official'
FIELDS = ('item', 'category', 'time')
ROLES = ('attention', 'representation')
SIDES = ('target', 'behavior')


@functools.cache
def file(name: str) -> dict[str, np.ndarray]:
  with np.load(_FOLDER / f'{name}.npz') as file:
    return dict(file)


def state(name: str, dtype: Any = np.float32) -> dict[str, np.ndarray]:
  return {
    key.removeprefix('sd/'): value.astype(dtype)
    for key, value in file(name).items()
    if key.startswith('sd/')
  }


def to_batch(data: Mapping[str, np.ndarray], dtype: Any) -> types.Batch:
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
  return jax.device_put(batch)


def table(field: str, role: str, side: str) -> str:
  return f'{field}_id_embedding_layer_for_{role}_of_{side}.weight'


# Uses that share: (role, side) -> the use whose array theirs is.
TARGET = {(r, s): (r, 'target') for r in ROLES for s in SIDES}
OWN = {(r, s): (r, s) for r in ROLES for s in SIDES}
ONE = dict.fromkeys(OWN, ('attention', 'target'))
THREE = OWN | {('representation', 'behavior'): ('representation', 'target')}
EQUAL = {role: {'item': 4, 'category': 3, 'time': 2} for role in ROLES}
UNEQUAL = {
  'attention': {'item': 2, 'category': 3, 'time': 1},
  'representation': {'item': 5, 'category': 4, 'time': 3},
}
ROWS = {'item': 30, 'category': 5, 'time': 140}
HIDDEN = {'main_mlp': (7, 5), 'auxiliary_mlp': (6,)}
LENGTH = 7
TOP_K = 3
JOINT_OWN = {'joint': OWN}
JOINT_TIED = {'joint': TARGET}


def random_state(
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
  for field in FIELDS:
    for use, source in shared.items():
      shape = (ROWS[field], dims[use[0]][field])
      name = table(field, *use)
      if use == source:
        state[name] = rng.normal(size=shape)
      else:
        state[name] = state[table(field, *source)]
  used = FIELDS if time else FIELDS[:2]
  widths = {role: sum(dims[role][field] for field in used) for role in ROLES}

  def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> None:
    scale = 1 / math.sqrt(inputs)
    state[f'{name}.weight'] = scale * rng.normal(size=(outputs, inputs))
    if bias:
      state[f'{name}.bias'] = 0.3 * rng.normal(size=outputs)

  for role, side in OWN:
    if per_field:
      for field in FIELDS:
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
  for mlp, hidden in HIDDEN.items():
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


def random_data(num_visible: tuple[int, ...]) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(5)
  rows = len(num_visible)
  first = LENGTH - np.array(num_visible)
  mask = (np.arange(LENGTH) >= first[:, None]).astype(int)
  data = {'mask': mask, 'target': np.eye(2)[rng.integers(0, 2, rows)]}
  for name, field in (('iid', 'item'), ('cid', 'category')):
    data[name] = rng.integers(1, ROWS[field], rows)
    data[f'hist_{name}'] = rng.integers(1, ROWS[field], mask.shape) * mask
  return data
