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
import numpy as np

from dare_jax import layers
from dare_jax.embeddings import content_vectors
from dare_jax.embeddings import plans
from dare_jax.embeddings import projections
from dare_jax.embeddings import scaled_rows

COLLECTION = 'tables'


class FeatureEncoder(nn.Module):
  """Looks up feature vectors by role and side.

  Tables live in the collection `tables`, named `<feature>_<suffix>`. Linen
  leaves the shapes of a variable collection alone, so the module runs on any
  number of rows: compact tables with remapped ids, or a shard.

  Attributes:
    content: the features of a behavior: item, category and further fields.
    time: the position feature, if any; its id 0 is the target's.
    plan: the plan: which table each use reads, and which maps follow.
    init_std: role -> standard deviation of a fresh table.
    projection_init: name in `projections.KERNEL_INITS`.
    compute_dtype: a name in `layers.COMPUTE_DTYPES`. Rows are narrowed after
      they are read, so that the gradients of a row that occurs often are summed
      wide.
  """

  content: tuple[plans.Feature, ...]
  time: plans.Feature | None
  plan: plans.Plan
  init_std: Mapping[str, float]
  projection_init: str = 'lecun'
  compute_dtype: str = 'float32'

  def setup(self) -> None:
    """Makes the tables of the features, and the maps that the plan names."""
    features = self.content if self.time is None else (*self.content, self.time)
    variables = {}
    for feature in features:
      self.plan.check(feature)
      for name, suffix in feature.tables(self.plan).items():
        variables[name] = self._table(feature, suffix, name)
    self._tables = variables
    self.vector_map = {
      role: content_vectors.VectorMap(
        feature.dim(role), self.init_std[role], self.compute_dtype
      )
      for feature in features
      for role in plans.ROLES
      if feature.is_given and feature.dim(role)
    }
    shape = self.plan.projection
    if shape is None:
      return
    kernel_init = projections.KERNEL_INITS[self.projection_init]
    uses = {shape.name(*use): use[0] for use in self.plan.table_of}
    if shape.per_field:
      self.projection = {
        f'{feature.name}_{use}': projections.FieldMap(shape.hidden, kernel_init)
        for feature in features
        for use in uses
        if not feature.is_given
      }
    else:
      width = {role: sum(f.dim(role) for f in features) for role in plans.ROLES}
      self.joint_projection = {
        use: layers.Affine(width[role], width[role], kernel_init)
        for use, role in uses.items()
      }

  def _table(self, feature: plans.Feature, suffix: str, name: str) -> Any:
    shape = (feature.vocab_size, feature.table_dim(self.plan, suffix))
    if feature.is_given:  # What is trained, or read, brings them along.
      return self.variable(COLLECTION, name, jnp.zeros, shape)
    std = self.init_std[self.plan.role_of(suffix)]
    return self.variable(
      COLLECTION,
      name,
      lambda: std * jax.random.normal(self.make_rng('params'), shape),
    )

  @property
  def mixes_time(self) -> bool:
    """Whether one map takes content and time together.

    Then a whole vector is the sum of its content and time vectors; otherwise
    it is one beside the other.
    """
    shape = self.plan.projection
    return shape is not None and not shape.per_field and self.time is not None

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
    joined = jnp.concatenate(vectors, axis=-1)
    shape = self.plan.projection
    if shape is None or shape.per_field:
      return joined
    affine = self.joint_projection[shape.name(role, side)]
    if self.time is None:
      return affine(joined)
    return joined @ affine.kernel[: joined.shape[-1]]

  def search_keys_without(
    self, field: str, ids: Mapping[str, Int[Array, ...]]
  ) -> Float[Array, '... d']:
    """Returns attention keys that lack a field's part.

    Scores are <part of `search_query`, these> + <the rest of it, the field's
    row of `search_keys_of`>. A map of all fields is moved to the query.
    """
    vectors = [
      self._use(feature, 'attention', 'behavior', ids[feature.name])
      for feature in self.content
      if feature.name != field
    ]
    return jnp.concatenate(vectors, axis=-1)

  def search_keys_of(self, field: str) -> Float[Array, 'n e']:
    """Returns the field's part of attention keys, of all its ids."""
    feature = next(f for f in self.content if f.name == field)
    suffix = self.plan.table_of['attention', 'behavior']
    count = self._tables[f'{field}_{suffix}'].value.shape[0]
    rows = self._use(feature, 'attention', 'behavior', jnp.arange(count))
    if not self._maps_all:
      return rows
    affine = self._behavior_map()
    return rows @ affine.kernel[self._dims_of(field)] + affine.bias[None]

  def search_query(
    self, field: str, query: Float[Array, '... d']
  ) -> Float[Array, '... e']:
    """Returns attention queries whose last part is for a field's keys.

    `query` is from `lookup`. Where a map of all fields is moved to it, it is
    wider, and longer, so that scores keep the scale of their width.
    """
    own = self._dims_of(field)
    others = np.setdiff1d(np.arange(query.shape[-1]), own)
    if not self._maps_all:
      return query[..., np.concatenate([others, own])]
    affine = self._behavior_map()
    parts = [query @ affine.kernel[others].T, query]
    joined = jnp.concatenate(parts, axis=-1)
    return joined * (joined.shape[-1] / query.shape[-1]) ** 0.5

  @property
  def _maps_all(self) -> bool:
    """Whether one map takes all fields of content, and no time."""
    shape = self.plan.projection
    if shape is None or shape.per_field:
      return False
    if self.time is not None:
      raise ValueError(
        f'plan {self.plan.name!r} mixes time and content: its keys have no'
        ' parts of their own; choose another plan.'
      )
    return True

  def _behavior_map(self) -> Any:
    assert self.plan.projection is not None
    name = self.plan.projection.name('attention', 'behavior')
    return self.joint_projection[name]

  def _dims_of(self, field: str) -> np.ndarray:
    """Returns which dimensions of attention vectors are a field's."""
    names = [f.name for f in self.content]
    widths = [f.dim('attention') for f in self.content]
    place = names.index(field)
    return sum(widths[:place]) + np.arange(widths[place])

  def time_rows(
    self, role: str, side: str, ids: Int[Array, ' n']
  ) -> Float[Array, 'n d']:
    """Returns the time vectors of position ids.

    Args:
      role: 'attention' or 'representation'.
      side: 'target' or 'behavior'.
      ids: position ids, such as `positions.ids_up_to` returns.
    """
    assert self.time is not None
    rows = self._use(self.time, role, side, ids)
    if self.mixes_time:
      assert self.plan.projection is not None
      affine = self.joint_projection[self.plan.projection.name(role, side)]
      rows = rows @ affine.kernel[-rows.shape[-1] :] + affine.bias[None]
    return rows

  def _use(
    self, feature: plans.Feature, role: str, side: str, ids: Any
  ) -> Float[Array, '... d']:
    if feature.is_given:
      if not feature.dim(role):
        return jnp.zeros((*ids.shape, 0), self.compute_dtype)
      table = self._tables[content_vectors.TABLE].value
      return self.vector_map[role](table, ids)
    suffix = self.plan.table_of[role, side]
    table = self._tables[f'{feature.name}_{suffix}'].value
    vectors = scaled_rows.take(table, ids)
    # Tables may be stored narrower than what is computed with.
    vectors = layers.narrow(layers.widen(vectors), self.compute_dtype)
    shape = self.plan.projection
    if shape is not None and shape.per_field:
      name = f'{feature.name}_{shape.name(role, side)}'
      vectors = self.projection[name](vectors)
    return vectors
