"""Match terms: does a field of the target equal the behavior's?

In scores, a learned bias where the item or the category is equal, so that a
search finds exact matches from the first step on. In the heads, of each field,
how often the target's value occurs in the whole history that its moment sees,
and how far back it last did.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from dare_jax import aggregate
from dare_jax import types
from dare_jax.models import ranker_config
from dare_jax.search import matching
from dare_jax.tables import layout

# More than the spread of the scores of fresh tables.
_FRESH_BIAS = 1.0
_UNKNOWN = 1
# A further field matches more often than a search keeps behaviors, and its own
# vectors say as much; a bias in each score of a step is dear.
_IN_SCORES = ('item', 'category')


class MatchTerms(nn.Module):
  """The match terms of one model; without fields, nothing.

  An aggregation that uses no scores has the terms in the heads alone.

  Attributes:
    config: the config of the model.
  """

  config: ranker_config.RankerConfig

  def setup(self) -> None:
    """Makes the bias of item and category, where scores weigh behaviors."""
    fields = [f for f in self.config.match_fields if f in _IN_SCORES]
    if not aggregate.AGGREGATIONS[self.config.aggregation].uses_scores:
      fields = []
    bias: Any = ()
    if fields:
      fresh = nn.initializers.constant(_FRESH_BIAS)
      bias = self.param('bias', fresh, (len(fields),))
    self._bias = {field: bias[i] for i, field in enumerate(fields)}

  def of_targets(
    self,
    target_ids: Mapping[str, Any],
    rows: Mapping[str, Any] | None = None,
  ) -> matching.Matching:
    """Returns what targets match.

    Args:
      target_ids: field -> int [b, m, c], ids of the targets.
      rows: `types.Batch.rows`, where ids point into it.
    """
    ids = {}
    for feature in self.config.content:
      if feature.name in self.config.match_fields:
        own = target_ids[feature.name]
        unknown = _unknown(feature, rows or {})
        nothing = matching.is_nothing(own, unknown)
        ids[feature.name] = jnp.where(nothing, matching.NOTHING, own)
    return matching.Matching(ids, dict(self._bias))

  def found(
    self, result: types.SearchResult, matches: matching.Matching, batch: Any
  ) -> types.SearchResult:
    """Returns a search's result with the matches in whole histories.

    Args:
      result: what the search found.
      matches: the matches of the targets.
      batch: the batch, with histories and moments.
    """
    start = jnp.zeros_like(batch.end) if batch.start is None else batch.start
    made = {}
    for field, targets in matches.ids.items():
      ids = batch.history.ids[field]
      made[field] = matching.count(ids, targets, start, batch.end)
    return dataclasses.replace(result, matches=made)

  def features(
    self, result: types.SearchResult, dtype: Any
  ) -> list[Float[Array, 'b m c 3']]:
    """Returns what the heads see of each field's matches.

    Whether there is one, ln(1 + their number), and ln(distance) of the most
    recent; zeros where there is none.
    """
    made = []
    for field in self.config.match_fields:
      found = result.matches[field]
      parts = (
        found.count > 0,
        jnp.log1p(found.count.astype(jnp.float32)),
        jnp.log(jnp.maximum(found.distance, 1).astype(jnp.float32)),
      )
      made.append(jnp.stack([x.astype(dtype) for x in parts], axis=-1))
    return made


def _unknown(feature: Any, rows: Mapping[str, Any]) -> Any:
  """Returns the id that a batch has for the unknown one; -1: for none."""
  if feature.name not in rows:
    return _UNKNOWN
  own = rows[feature.name]
  place = layout.position(_UNKNOWN, layout.padded(feature.vocab_size))
  index = jnp.arange(own.shape[0], dtype=jnp.int32)
  return jnp.max(jnp.where(own == place, index, matching.NOTHING))
