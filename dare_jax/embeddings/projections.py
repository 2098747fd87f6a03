"""Maps after a lookup: the paper's attempts to share a table after all.

arXiv 2410.02604, section 3.3, projects one shared table for each use, and
finds that it does not help. How the maps start matters: at the published
0.01 their gradients begin far below Adam's epsilon.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Projection:
  """The shape of a plan's maps.

  Attributes:
    per_field: a map for each field, without bias; else one map with bias for
      all fields of a vector, time included.
    tied: target and behavior share their map.
    hidden: hidden layers of each map, ReLU; 0 makes it linear.
  """

  per_field: bool = True
  tied: bool = False
  hidden: int = 0

  def __post_init__(self) -> None:
    if self.hidden and not self.per_field:
      raise ValueError('hidden layers are for maps per field.')

  def name(self, role: str, side: str) -> str:
    return role if self.tied else f'{role}_{side}'


def _identity(
  key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32
) -> jax.Array:
  del key
  return jnp.eye(*shape, dtype=dtype)


KERNEL_INITS: Mapping[str, Callable[..., Any]] = {
  'lecun': nn.initializers.lecun_normal(),
  'identity': _identity,
  'orthogonal': nn.initializers.orthogonal(),
  'official': nn.initializers.normal(0.01),
}


class FieldMap(nn.Module):
  """Maps one field's vectors to vectors of the same width."""

  hidden: int
  kernel_init: Callable[..., Any]

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    for layer in range(self.hidden + 1):
      if layer:
        x = nn.relu(x)
      x = nn.Dense(x.shape[-1], use_bias=False, kernel_init=self.kernel_init)(x)
    return x
