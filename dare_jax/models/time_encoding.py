"""What time adds: to scores, to the values pooled, and to the targets.

Time is a position, counted back from the target. A plan maps it beside the
content of a behavior, or mixes both in one map (`mixed_time`); no code outside
this file asks which of the two a plan does. Vectors of the real time
(`real_time`) are added to those of positions; without positions, they are
beside the content.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import types
from dare_jax.models import mixed_time
from dare_jax.models import ranker_config
from dare_jax.models import real_time


@dataclasses.dataclass(frozen=True)
class TimeEncoding:
  """The time of the behaviors and targets of one model.

  Attributes:
    encoder: holds the tables and the maps of time vectors.
    config: the config of the model.
    real: the real time of the model.
  """

  encoder: embeddings.FeatureEncoder
  config: ranker_config.RankerConfig
  real: real_time.RealTime

  @property
  def attention_dim(self) -> int:
    """Width of a time vector on the attention side; 0 without time."""
    return self.config.time.attention_dim if self.config.use_time else 0

  def scaled(
    self, vectors: Float[Array, '*shape d']
  ) -> Float[Array, '*shape d']:
    """Returns queries or keys, as scores of this model multiply them."""
    scale = self._scale
    if scale is None:
      return vectors
    axes = tuple(range(vectors.ndim - 1))
    return vectors * jnp.expand_dims(scale, axes)

  def position_scores(
    self, query: Float[Array, 'b m c d'], length: Any
  ) -> Float[Array, ' p'] | Float[Array, 'b m c p']:
    """Returns the part of a score that the behavior's position adds.

    Args:
      query: search queries of the targets, as `scaled` returns them.
      length: number of slots of the histories.

    Returns:
      Scores of the distances 0 to `length`; those of each target apart, for a
      plan that mixes time and content.
    """
    ids = self._position_ids(length)
    if not self.config.use_time:
      return jnp.zeros(ids.shape, query.dtype)
    rows = self.encoder.time_rows('attention', 'behavior', ids)
    target = self._of_target('attention')
    if (scale := self._scale) is not None:
      return mixed_time.position_scores(query, target, rows, scale)
    return rows @ target * rows.shape[-1] ** -0.5

  def behavior_scores(
    self, keys: Float[Array, 'b l d']
  ) -> Float[Array, 'b l'] | None:
    """Returns the scores of the target's time with each behavior's content.

    Args:
      keys: search keys of the behaviors, as `scaled` returns them.

    Returns:
      None for a plan that does not mix time and content: they score nothing
      together.
    """
    if (scale := self._scale) is None:
      return None
    return mixed_time.behavior_scores(keys, self._of_target('attention'), scale)

  def value_rows(self, length: Any) -> Float[Array, 'p t'] | None:
    """Returns the representation vectors of the distances 0 to `length`."""
    if not self.config.use_time:
      return None
    ids = self._position_ids(length)
    return self.encoder.time_rows('representation', 'behavior', ids)

  def values(
    self,
    content: Any,
    rows: Float[Array, 'p t'] | None,
    distance: Int[Array, 'b m ...'],
    gap: Int[Array, 'b m ...'] | None,
  ) -> aggregate.Values:
    """Returns the values of behaviors at given distances.

    Args:
      content: representation vectors, as `aggregate.Values` holds them.
      rows: what `value_rows` returns.
      distance: how far back each behavior lies from its moment.
      gap: how many seconds ago it was; None: the model has no gaps.
    """
    real = self.real.vectors(gap)
    if rows is None:
      return aggregate.Values(content, real)
    time = jnp.take(rows, distance, axis=0, mode='clip')
    time = time if real is None else time + real
    return aggregate.Values(content, time, self.encoder.mixes_time)

  def values_in_place(
    self,
    content: Float[Array, 'b l d'],
    rows: Float[Array, 'p t'] | None,
    result: types.SearchResult,
  ) -> aggregate.Values:
    """Returns the values of the behaviors kept, in whole windows.

    Args:
      content: representation vectors of all behaviors.
      rows: what `value_rows` returns.
      result: the behaviors kept.
    """
    time = None
    if rows is not None:
      time = aggregate.AtDistance(rows, result.distance)
    mixed = self.encoder.mixes_time
    return aggregate.Values(content, time, mixed, result.indices)

  def values_counted_back(
    self,
    content: Float[Array, 'b l d'],
    rows: Float[Array, 'p t'] | None,
    end: Int[Array, 'b m'],
    gap: Int[Array, 'b m l'] | None,
  ) -> aggregate.Values:
    """Returns the values of whole windows, counted back from each moment.

    Args:
      content: representation vectors of all behaviors.
      rows: what `value_rows` returns.
      end: the moments, as `types.Batch` holds them.
      gap: as `values` takes it, of all behaviors.
    """
    real = self.real.vectors(gap)
    if rows is None:
      return aggregate.Values(content, real)
    time = aggregate.CountedBack(rows, end, real)
    return aggregate.Values(content, time, self.encoder.mixes_time)

  def with_own_time(
    self, content: Float[Array, 'b m c d']
  ) -> Float[Array, 'b m c v']:
    """Returns representation vectors of targets: content and their own time."""
    if self.config.use_time:
      time = self._of_target('representation')
    elif (own := self.real.own_vector()) is not None:
      time = own
    else:
      return content
    if self.encoder.mixes_time:
      return content + jnp.expand_dims(time, (0, 1, 2))
    time = jnp.broadcast_to(time, (*content.shape[:-1], time.shape[0]))
    return jnp.concatenate([content, time], axis=-1)

  def _of_target(self, role: str) -> Float[Array, ' t']:
    """Returns the time vector of a target: that of distance 0."""
    origin = jnp.zeros(1, jnp.int32)
    return self.encoder.time_rows(role, 'target', origin)[0]

  def _position_ids(self, length: Any) -> Int[Array, ' p']:
    """Returns the time ids of the distances 0 to `length`."""
    return embeddings.ids_up_to(length, self.config.exact_positions)

  @property
  def _scale(self) -> Float[Array, ' d'] | None:
    """What `mixed_time.scale` returns; None for a plan that does not mix."""
    if not self.encoder.mixes_time:
      return None
    dim = sum(feature.attention_dim for feature in self.config.content)
    time = self.config.time.attention_dim
    return mixed_time.scale(dim, time, self.config.compute_dtype)
