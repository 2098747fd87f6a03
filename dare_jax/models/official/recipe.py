"""What only the published code does: choices of its models, initial values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dare_jax.models import presets

# Share of the running statistics that a step keeps (PyTorch's momentum 0.1).
NORM_MOMENTUM = 0.9
_STD = 0.01
# Its hard search scores with time counted twice, and fills up with padding.
_OF_HARD_SEARCH = {'scorer': 'dot_time_twice', 'keep_padding': True}


def options(preset: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the options of a preset as the published code has them.

  The presets are its models, but for hard search. That is followed wherever it
  is the search, also under a preset which that code lacks (`sim_hard`).

  >>> options('sim_hard', {'plan': None})['scorer']
  'dot_time_twice'
  >>> options('sim_hard', {'scorer': 'dot'})['scorer']
  'dot'

  Args:
    preset: a name in `PRESETS`; any other name has no published options.
    overrides: option -> value, which replaces what was published; None replaces
      nothing.
  """
  given = {k: v for k, v in overrides.items() if v is not None}
  chosen = dict(presets.PRESETS.get(preset, {})) | given
  if chosen.get('search') == 'category':
    return {**_OF_HARD_SEARCH, **chosen}
  return chosen


def redraw(key: jax.Array, variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns variables as the published code draws them.

  Everything but biases is N(0, 0.01^2): tables and kernels, but also the
  scales of batch normalisation and the slopes of PReLU. Biases of dense layers
  are uniform within 1 / sqrt(inputs), those of batch normalisation 0.

  Args:
    key: a random key.
    variables: the variables that `Ranker.init` returns; those that are neither
      tables nor parameters are kept.
  """

  def draw(path: Any, leaf: jax.Array) -> jax.Array:
    """Returns a fresh value of one variable, by its name."""
    name = jax.tree_util.keystr(path)
    own = jax.random.fold_in(key, _hash(name))
    if path[-1].key != 'bias':
      return _STD * jax.random.normal(own, leaf.shape, leaf.dtype)
    kernel = params
    for part in path[:-1]:
      kernel = kernel[part.key]
    if 'kernel' not in kernel:
      return jnp.zeros_like(leaf)
    bound = kernel['kernel'].shape[0] ** -0.5
    return jax.random.uniform(own, leaf.shape, leaf.dtype, -bound, bound)

  params = variables['params']
  drawn = {
    name: jax.tree_util.tree_map_with_path(draw, variables[name])
    for name in ('params', 'tables')
  }
  return {**variables, **drawn}


def _hash(name: str) -> int:
  value = 0
  for letter in name:
    value = (value * 131 + ord(letter)) % (1 << 31)
  return value
