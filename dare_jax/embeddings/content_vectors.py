"""Vectors of items that are given, such as those of a text or image model.

One table holds them, for all roles and sides and under every plan; a map of
each role, without bias, brings them to the width of the others. As both sides
share the map, an item has the same vector as a target and as a behavior, and a
zero, which stands for no vector, says nothing. That content searches well, and
ids represent well, is what MUSE (arXiv 2512.07216) finds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import layers
from dare_jax import shapes
from dare_jax.embeddings import plans
from dare_jax.embeddings import scaled_rows

FIELD = 'item_vector'
TABLE = 'item_vectors'
_SUFFIX = 'given'


@dataclasses.dataclass(frozen=True)
class GivenVectors:
  """How a model reads the vectors of its items.

  Attributes:
    width: width of the vectors.
    roles: the roles that read them, among `plans.ROLES`.
    tuned: whether they are trained on, as other tables are.
  """

  width: int
  roles: tuple[str, ...] = plans.ROLES
  tuned: bool = False

  def __post_init__(self) -> None:
    check_roles(self.roles)
    if self.width < 1:
      raise ValueError(f'item vectors {self.width} wide; expected 1 or more.')


def check_roles(roles: tuple[str, ...]) -> None:
  """Raises ValueError for what are no roles that read vectors."""
  if not roles or not set(roles) <= set(plans.ROLES):
    raise ValueError(
      f'model.vectors_in={tuple(roles)}: expected one or both of'
      f' {", ".join(plans.ROLES)}.'
    )


@dataclasses.dataclass(frozen=True)
class VectorFeature(plans.Feature):
  """The given vectors as a feature; a width of 0: not in that role.

  Attributes:
    width: width of the vectors.
    tuned: whether training moves the vectors, see `GivenVectors`.
  """

  width: int = 1
  tuned: bool = False

  def __post_init__(self) -> None:
    dims = self.attention_dim, self.representation_dim
    if min(dims) < 0 or not max(dims):
      raise ValueError(
        f'{self.name}: vectors {dims} wide in attention and representation;'
        ' expected 1 or more.'
      )

  def tables(self, plan: plans.Plan) -> dict[str, str]:
    del plan  # It is about what is learned for each use.
    return {TABLE: _SUFFIX}

  def table_dim(self, plan: plans.Plan, suffix: str) -> int:
    del plan, suffix
    return self.width

  @property
  def is_given(self) -> bool:
    return True


def is_frozen(feature: plans.Feature) -> bool:
  """Returns whether the vectors of a feature are never trained."""
  return isinstance(feature, VectorFeature) and not feature.tuned


class VectorMap(nn.Module):
  """Looks up given vectors and maps them.

  Attributes:
    dim: width of the vectors that the map returns.
    std: standard deviation of a fresh map. The given vectors have length 1, so
      that those returned have elements of that size, as a fresh table has.
    compute_dtype: a name in `layers.COMPUTE_DTYPES`.
  """

  dim: int
  std: float
  compute_dtype: str = 'float32'

  @nn.compact
  def __call__(self, table: Any, ids: Int[Array, ...]) -> Float[Array, '... d']:
    """Returns the mapped vectors of ids; the last row for larger ones."""
    dense = nn.Dense(
      self.dim,
      use_bias=False,
      kernel_init=nn.initializers.normal(self.std),
    )

    def mapped(rows: Any) -> Any:
      return dense(layers.narrow(layers.widen(rows), self.compute_dtype))

    # Of the rows of a batch each is mapped once: they are fewer than its ids.
    is_array = not isinstance(table, scaled_rows.ScaledRows)
    if is_array and shapes.are_known(*ids.shape) and ids.size >= len(table):
      return jnp.take(mapped(table), ids, axis=0, mode='clip')
    return mapped(scaled_rows.take(table, ids))
