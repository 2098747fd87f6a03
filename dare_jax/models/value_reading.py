"""The values that a ranker pools: representation vectors, as content and time.

What a search found decides how they are read: whole windows once for all
targets, the behaviors kept where they lie in their windows, or these alone.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import types
from dare_jax.models import time_encoding


@dataclasses.dataclass(frozen=True)
class ValueReader:
  """Reads the representation side of one model.

  Attributes:
    encoder: holds the tables.
    time: the time of behaviors and targets.
    in_place: whether behaviors kept are weighed in their windows, rather than
      gathered; see `RankerConfig.kept_in_place`.
  """

  encoder: embeddings.FeatureEncoder
  time: time_encoding.TimeEncoding
  in_place: bool

  def content(self, history: types.History) -> Float[Array, 'b l d']:
    """Returns the vectors of all behaviors, without time."""
    return self.encoder.lookup('representation', 'behavior', history.ids)

  def all_of(
    self, batch: types.Batch
  ) -> tuple[Float[Array, 'b l d'], Float[Array, 'p t'] | None]:
    """Returns the vectors of all behaviors, and those of all distances."""
    return self.content(batch.history), self._rows(batch)

  def found(
    self, batch: types.Batch, result: types.SearchResult
  ) -> aggregate.Values:
    """Returns the values of the behaviors that a search found.

    Args:
      batch: histories and moments.
      result: what the search found in them.
    """
    if result.everything:
      return self.pooled(*self.all_of(batch), batch)
    if self.in_place and result.gap is None:
      return self.time.values_in_place(*self.all_of(batch), result)
    indices = result.indices
    flat = indices.reshape(indices.shape[0], -1)
    ids = {
      field: jnp.take_along_axis(values, flat, axis=1).reshape(indices.shape)
      for field, values in batch.history.ids.items()
    }
    return self.of_ids(ids, batch, result)

  def of_ids(
    self,
    ids: Mapping[str, Int[Array, 'b m c k']],
    batch: types.Batch,
    result: types.SearchResult,
  ) -> aggregate.Values:
    """Returns the values of behaviors kept, from their ids.

    Args:
      ids: field -> int [b, m, c, k], the ids of the behaviors kept.
      batch: its history's length is the largest distance.
      result: the distances of the behaviors kept, and the gaps of a model with
        real time.
    """
    content = self.encoder.lookup('representation', 'behavior', ids)
    distance, gap = result.distance, result.gap
    return self.time.values(content, self._rows(batch), distance, gap)

  def pooled(
    self,
    content: Float[Array, 'b l d'],
    rows: Float[Array, 'p t'] | None,
    batch: types.Batch,
    distance: Int[Array, 'b m l'] | None = None,
  ) -> aggregate.Values:
    """Returns the values of all behaviors of a batch, given their vectors.

    Args:
      content: vectors of the behaviors, as `all_of` returns them.
      rows: vectors of the distances, as `all_of` returns them.
      batch: histories and moments.
      distance: how far back the behaviors are, where a search changes that;
        None: they are counted back from each moment.
    """
    gap = self.time.real.gaps(batch)
    if distance is None:
      return self.time.values_counted_back(content, rows, batch.end, gap)
    return self.time.values(content, rows, distance, gap)

  def _rows(self, batch: types.Batch) -> Float[Array, 'p t'] | None:
    """Returns the vectors of all distances that a history has."""
    return self.time.value_rows(batch.history.mask.shape[1])
