"""The feature encoder: tables, and what each (role, side) reads from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.embeddings import tables

COLLECTION = 'tables'


class FeatureEncoder(nn.Module):
  """Looks up feature vectors by role and side.

  Tables live in the collection `tables`, named `<feature>_<suffix>`. Linen
  leaves the shapes of a variable collection alone, so the module runs on any
  number of rows: compact tables with remapped ids, or a shard.

  Attributes:
    content: item, category and further fields of a behavior.
    time: the position feature; its id 0 is the target's.
    plan: which table each use reads.
    init_std: role -> standard deviation of a fresh table.
  """

  content: tuple[tables.Feature, ...]
  time: tables.Feature
  plan: tables.Plan
  init_std: Mapping[str, float]

  def setup(self) -> None:
    variables = {}
    for feature in (*self.content, self.time):
      self.plan.check(feature)
      for suffix in self.plan.suffixes:
        name = f'{feature.name}_{suffix}'
        variables[name] = self._table(feature, suffix, name)
    self._tables = variables
    if self.plan.projected:
      self.projection = {
        f'{feature.name}_{role}_{side}': nn.Dense(
          feature.dim(role), use_bias=False
        )
        for feature in (*self.content, self.time)
        for role, side in self.plan.table_of
      }

  def _table(self, feature: tables.Feature, suffix: str, name: str) -> Any:
    role = self.plan.role_of(suffix)
    shape = (feature.vocab_size, feature.dim(role))
    std = self.init_std[role]
    return self.variable(
      COLLECTION,
      name,
      lambda: std * jax.random.normal(self.make_rng('params'), shape),
    )

  def lookup(
    self, role: str, side: str, ids: Mapping[str, Int[Array, ...]]
  ) -> Float[Array, '... d']:
    """Returns the content vectors, item | category | further fields.

    Args:
      role: 'attention' or 'representation'.
      side: 'target' or 'behavior'.
      ids: field -> ids of one shape; they must be below the table's rows
        (larger ones read the last row: check them on the host).
    """
    vectors = [
      self._use(feature, role, side, ids[feature.name])
      for feature in self.content
    ]
    return jnp.concatenate(vectors, axis=-1)

  def time_rows(
    self, role: str, side: str, ids: Int[Array, ' n']
  ) -> Float[Array, 'n d']:
    """Returns the time vectors of position ids."""
    return self._use(self.time, role, side, ids)

  def _use(
    self, feature: tables.Feature, role: str, side: str, ids: Any
  ) -> Float[Array, '... d']:
    suffix = self.plan.table_of[role, side]
    table = self._tables[f'{feature.name}_{suffix}'].value
    vectors = jnp.take(table, ids, axis=0, mode='clip')
    if self.plan.projected:
      vectors = self.projection[f'{feature.name}_{role}_{side}'](vectors)
    return vectors
