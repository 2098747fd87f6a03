"""Real time: how long ago a behavior was, and at what hour the moment is.

Beside positions, which know order alone. In scores, a learned bias of each kind
of gap (`search.gaps`): its length, and the day of the week that it ends on, so
that what comes back weekly can be found. In values, a vector of each. In the
heads, the time since the last behavior, and since the last match of each field,
and the hour and the weekday of the moment.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import aggregate
from dare_jax import layers
from dare_jax import types
from dare_jax.models import ranker_config
from dare_jax.search import gaps as gaps_lib
from dare_jax.search import view as search_view

# Of weekday and hour: values, and the width of their vectors in the heads.
_VALUES = {'weekday': 7, 'hour': 24}
_WIDTH = 4
_NONE = -1


class RealTime(nn.Module):
  """The real time of one model; without `real_time`, nothing.

  Biases begin at 0, and so do vectors that are added to those of positions: at
  first the model is the one without them.

  Attributes:
    config: the config of the model.
  """

  config: ranker_config.RankerConfig

  def setup(self) -> None:
    """Makes the tables and biases of the parts that the config names."""
    config, zeros = self.config, nn.initializers.zeros
    self.moment_tables = {
      part: nn.Embed(_VALUES[part], _WIDTH)
      for part in config.real_time
      if part in _VALUES
    }
    self._has_bias = self._has_gaps and (
      aggregate.AGGREGATIONS[config.aggregation].uses_scores
    )
    sizes = {'gap': gaps_lib.RANGES, 'phase': gaps_lib.PHASES}
    if self._has_bias:
      self._bias = [
        self.param(f'{name}_bias', zeros, (size,))
        for name, size in sizes.items()
      ]
    if self._has_gaps:
      fresh = nn.initializers.normal(config.representation_init)
      width = config.time_width
      self._vectors = [
        self.param(
          f'{name}_vectors',
          zeros if config.use_time else fresh,
          (size, width),
        )
        for name, size in sizes.items()
      ]
      if not config.use_time:
        self._own = self.param('own_vector', fresh, (width,))

  @property
  def _has_gaps(self) -> bool:
    return 'gap' in self.config.real_time

  def gaps(self, batch: types.Batch) -> Int[Array, 'b m l'] | None:
    """Returns the seconds from each behavior to each moment; None: not read."""
    if not self._has_gaps:
      return None
    assert batch.now is not None and batch.history.time is not None
    return gaps_lib.between(batch.now, batch.history.time)

  def bias(self) -> Float[Array, ' n'] | None:
    """Returns what each of `gaps.KINDS` adds to a score; None: nothing."""
    if not self._has_bias:
      return None
    of_gap, of_phase = self._bias
    return (of_gap[:, None] + of_phase[None]).ravel()

  def scores(self, view: search_view.SearchView) -> Any:
    """Returns what gaps add to scores, [b, m, 1, l]; None: nothing."""
    bias = self.bias()
    if bias is None or view.gap is None:
      return None
    added = jnp.take(bias, gaps_lib.kind(view.gap), mode='clip')
    return added[:, :, None]

  def vectors(
    self, gap: Int[Array, '*shape'] | None
  ) -> Float[Array, '*shape t'] | None:
    """Returns representation vectors of gaps; None: there are none."""
    if gap is None:
      return None
    of_gap, of_phase = self._vectors
    rows = (of_gap[:, None] + of_phase[None]).reshape(-1, of_gap.shape[-1])
    rows = layers.narrow(rows, self.config.compute_dtype)
    return jnp.take(rows, gaps_lib.kind(gap), axis=0, mode='clip')

  def own_vector(self) -> Float[Array, ' t'] | None:
    """Returns the targets' vector beside gaps; None: positions have one."""
    if not self._has_gaps or self.config.use_time:
      return None
    return layers.narrow(self._own, self.config.compute_dtype)

  def found(
    self, result: types.SearchResult, batch: types.Batch
  ) -> types.SearchResult:
    """Returns a search's result with the time since the last behavior.

    And since the last match of each field, where it has matches.

    Args:
      result: the result of the search.
      batch: the batch, with histories and moments.
    """
    gap = self.gaps(batch)
    if gap is None:
      return result
    start = jnp.zeros_like(batch.end) if batch.start is None else batch.start
    last = jnp.maximum(batch.end - 1, 0)[..., None]
    seen = jnp.take_along_axis(batch.history.mask[:, None], last, axis=-1)
    seen &= (last >= start[..., None]) & (batch.end[..., None] > 0)
    since = jnp.where(seen, jnp.take_along_axis(gap, last, axis=-1), _NONE)
    matches = {}
    for field, found in result.matches.items():
      place = jnp.maximum(batch.end[..., None] - found.distance, 0)
      place = jnp.minimum(place, gap.shape[-1] - 1)
      own = jnp.take_along_axis(gap, place, axis=-1)
      own = jnp.where(found.count > 0, own, _NONE)
      matches[field] = dataclasses.replace(found, gap=own)
    return dataclasses.replace(
      result, since_last=since[..., 0], matches=matches
    )

  def features(
    self, batch: types.Batch, result: types.SearchResult, dtype: Any
  ) -> list[Float[Array, 'b m c f']]:
    """Returns what the heads see of time.

    Whether there is a behavior, and ln(1 + seconds) since the last. Of each
    match field ln(1 + seconds) since the last match, and where in a week that
    was, on a circle; zeros without one. Vectors of the weekday and the hour.

    Args:
      batch: the batch, with moments and targets.
      result: the result as `found` returns it, or that of a search of cached
        keys.
      dtype: the dtype of the vectors.
    """
    shape = batch.targets.label.shape
    every = lambda x: jnp.broadcast_to(
      x[:, :, None], (*shape, x.shape[-1])
    ).astype(dtype)
    made = []
    if self._has_gaps:
      assert result.since_last is not None
      since = result.since_last[..., None]
      made.append(every(jnp.concatenate([since >= 0, _log(since)], axis=-1)))
    for field in self.config.match_fields if self._has_gaps else ():
      gap = result.matches[field].gap
      assert gap is not None
      turn = jnp.remainder(gap, gaps_lib.WEEK) * (2 * math.pi / gaps_lib.WEEK)
      circle = [
        jnp.where(gap < 0, 0.0, x) for x in (jnp.cos(turn), jnp.sin(turn))
      ]
      made.append(jnp.stack([_log(gap), *circle], axis=-1).astype(dtype))
    for part, table in self.moment_tables.items():
      assert batch.now is not None
      value = jnp.remainder(batch.now, gaps_lib.WEEK) // gaps_lib.HOUR
      value = value // 24 if part == 'weekday' else value % 24
      made.append(every(table(value)))
    return made


def _log(gap: Int[Array, '*shape']) -> Float[Array, '*shape']:
  """Returns ln(1 + gap) of gaps, 0 of none."""
  return jnp.log1p(jnp.maximum(gap, 0).astype(jnp.float32))
