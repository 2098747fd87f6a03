"""The initial values of the published code, for comparisons with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_STD = 0.01


def redraw(key: jax.Array, variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns variables as the published code draws them.

  Everything but biases is N(0, 0.01^2): tables and kernels, but also the
  scales of batch normalisation and the slopes of PReLU. Biases of dense layers
  are uniform within 1 / sqrt(inputs), those of batch normalisation 0.

  Args:
    key: random key.
    variables: of `Ranker.init`; what is neither table nor parameter is kept.
  """

  def draw(path: Any, leaf: jax.Array) -> jax.Array:
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
