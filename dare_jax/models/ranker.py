"""The ranker: search, then aggregate, then predict. One module for all models.

A model is four choices (plan, scorer, search, aggregation) and some sizes. No
code here, or elsewhere, asks for a model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import search as searches
from dare_jax import types
from dare_jax.models import head


@dataclasses.dataclass(frozen=True)
class ContextFeature:
  """A field of the user or the moment that only the head sees."""

  name: str
  vocab_size: int
  dim: int


@dataclasses.dataclass(frozen=True)
class RankerConfig:
  """Everything that shapes a ranker.

  Attributes:
    content: item, category and further fields of a behavior.
    time: the position feature.
    context: features of the head alone.
    plan: name in `embeddings.PLANS`.
    scorer: name in `search.SCORERS`.
    search: name in `search.SEARCHES`.
    aggregation: name in `aggregate.AGGREGATIONS`.
    top_k: behaviors kept.
    use_time: whether positions have vectors; False leaves `time` out.
    target_aware: feed the head target * interest as well (the paper's TR).
    only_product: feed the head nothing but target * interest (and context).
    exact_positions: behaviors back that have a time id of their own.
    hash_bits: bits of a SimHash code.
    hash_width: bits of one bucket's signature; divides hash_bits.
    search_dim: width of a search space of its own.
    num_clusters: bound of the cluster numbers of a window.
    hidden: widths of the main head.
    aux_hidden: widths of the auxiliary head.
    aux_head: whether there is an auxiliary head.
    projection_init: name in `embeddings.KERNEL_INITS`.
    attention_init: standard deviation s of fresh attention tables. Wide enough,
      a behavior that equals the target stands out from the first step on: its
      score is about s^2 sqrt(d), that of others s^2 from zero.
    representation_init: of fresh representation and shared tables.
    two_outputs: as `head.Head`.
    batch_statistics: as `head.Head`.
    keep_padding: as `search.SearchOptions`.
    axis_name: of the devices that share a batch, inside `jax.shard_map`: batch
      statistics are of all of it.
  """

  content: tuple[embeddings.Feature, ...]
  time: embeddings.Feature
  context: tuple[ContextFeature, ...] = ()
  plan: str = 'decoupled'
  scorer: str = 'dot'
  search: str = 'score'
  aggregation: str = 'softmax'
  top_k: int = 20
  use_time: bool = True
  target_aware: bool = True
  only_product: bool = False
  exact_positions: int = 200
  hash_bits: int = 32
  hash_width: int = 3
  search_dim: int = 16
  num_clusters: int = 4096
  hidden: tuple[int, ...] = (200, 80)
  aux_hidden: tuple[int, ...] = (200,)
  aux_head: bool = True
  projection_init: str = 'lecun'
  attention_init: float = 0.5
  representation_init: float = 0.1
  two_outputs: bool = False
  batch_statistics: bool = False
  keep_padding: bool = False
  axis_name: str | None = None

  @property
  def features(self) -> tuple[embeddings.Feature, ...]:
    """All features that have tables."""
    return (*self.content, self.time) if self.use_time else self.content


class Ranker(nn.Module):
  """Scores targets against histories.

  Collections: `params` (heads, projections, scorer, search), `tables` (all
  embeddings of the history and the targets), `batch_stats`, and `constants`
  where something random is fixed (the directions of hashes).
  """

  config: RankerConfig

  def setup(self) -> None:
    config = self.config
    self.encoder = embeddings.FeatureEncoder(
      content=config.content,
      time=config.time if config.use_time else None,
      plan=embeddings.PLANS[config.plan],
      init_std={
        'attention': config.attention_init,
        'representation': config.representation_init,
      },
      projection_init=config.projection_init,
    )
    self.scorer = searches.SCORERS[config.scorer]()
    self.searcher = searches.SEARCHES[config.search](
      searches.SearchOptions(
        top_k=config.top_k,
        hash_bits=config.hash_bits,
        search_dim=config.search_dim,
        num_clusters=config.num_clusters,
        keep_padding=config.keep_padding,
      )
    )
    self.aggregator = aggregate.AGGREGATIONS[config.aggregation](
      aggregate.AggregationOptions(config.hash_bits, config.hash_width)
    )
    options = (config.two_outputs, config.batch_statistics, config.axis_name)
    self.head = head.Head(config.hidden, *options)
    if config.aux_head:
      self.aux = head.Head(config.aux_hidden, *options)
    self.context_tables = {
      feature.name: nn.Embed(feature.vocab_size, feature.dim)
      for feature in config.context
    }

  def __call__(
    self, batch: types.Batch, train: bool = False
  ) -> types.RankerOutput:
    """Returns the logits of a batch.

    In training the auxiliary head reads the attention over the whole history,
    which lets behaviors outside the top k move the attention tables.

    Args:
      batch: histories, moments and targets.
      train: use and update batch statistics; run the auxiliary head. Apply
        with `mutable=['batch_stats']` then.
    """
    keys = self.encode_history(batch.history)
    view = self._view(
      keys, batch.history, batch.end, batch.targets.ids, batch.start
    )
    result, attention = self.searcher(view, self.scorer)
    logits, weights = self._predict(batch, result, train)
    aux_logits = None
    if self.config.aux_head and (train or self.is_initializing()):
      aux_logits = self._aux_logits(batch, attention, train)
    return types.RankerOutput(
      logits=logits,
      aux_logits=aux_logits,
      extra_losses={},
      search=result,
      weights=weights,
    )

  def encode_history(self, history: types.History) -> Float[Array, 'b l d']:
    """Returns the search keys of histories: item, category, further fields.

    Positions are not in them: appending a behavior invalidates no key.
    """
    return self.encoder.lookup('attention', 'behavior', history.ids)

  def search(
    self,
    keys: Float[Array, 'b l d'],
    history: types.History,
    end: Int[Array, 'b m'],
    target_ids: Mapping[str, Int[Array, 'b m c']],
    start: Int[Array, 'b m'] | None = None,
  ) -> types.SearchResult:
    """Returns the behaviors to keep for each target, from ready keys."""
    view = self._view(keys, history, end, target_ids, start)
    return self.searcher(view, self.scorer)[0]

  def score(
    self,
    batch: types.Batch,
    result: types.SearchResult,
    train: bool = False,
  ) -> Float[Array, 'b m c']:
    """Returns the logits given the behaviors found.

    Representation rows are read for those behaviors only.
    """
    return self._predict(batch, result, train)[0]

  def _predict(
    self, batch: types.Batch, result: types.SearchResult, train: bool
  ) -> tuple[Float[Array, 'b m c'], Float[Array, 'b m c k']]:
    """Returns the logits, and the weights of the behaviors found."""
    if result.everything:
      values = self._all_values(batch, _distance(batch.end, _length(batch)))
    else:
      values = self._values_at(batch, result)
    target = self.encoder.lookup('representation', 'target', batch.targets.ids)
    interest, weights = self.aggregator(result, values, target)
    features = self._features(batch, target, interest)
    logits = self.head(features, batch.targets.weight > 0, train)
    return logits, weights

  def _aux_logits(
    self, batch: types.Batch, attention: searches.Attention, train: bool
  ) -> Float[Array, 'b m c']:
    """The auxiliary head: softmax attention over the whole history."""
    weights = aggregate.masked_softmax(attention.scores, attention.mask)
    values = self._all_values(batch, attention.distance)
    target = self.encoder.lookup('representation', 'target', batch.targets.ids)
    features = self._features(batch, target, values.weigh(weights))
    return self.aux(features, batch.targets.weight > 0, train)

  def _view(
    self,
    keys: Float[Array, 'b l d'],
    history: types.History,
    end: Int[Array, 'b m'],
    target_ids: Mapping[str, Int[Array, 'b m c']],
    start: Int[Array, 'b m'] | None,
  ) -> searches.SearchView:
    length = keys.shape[1]
    query = self.encoder.lookup('attention', 'target', target_ids)
    query, bias = self._position_scores(query, self._position_ids(length))
    return searches.SearchView(
      query=query,
      keys=keys,
      bias_by_distance=bias,
      distance=_distance(end, length),
      visible=visible_behaviors(history, end, start),
      target_ids=target_ids,
      history=history,
      time_dim=self.config.time.attention_dim if self.config.use_time else 0,
    )

  def _position_scores(
    self, query: Float[Array, 'b m c d'], ids: Int[Array, ' p']
  ) -> tuple[Float[Array, 'b m c d'], Float[Array, ' p'] | Any]:
    """Returns the query, and the score of each position alone.

    Apart from content, a position's score is the same for all targets. Where
    one map takes both, the target's time is part of the query and a position's
    score depends on it; each part keeps the scale of its own width.
    """
    if not self.config.use_time:
      return query, jnp.zeros(ids.shape, query.dtype)
    rows = self.encoder.time_rows('attention', 'behavior', ids)
    target = self.encoder.time_rows('attention', 'target', ids[:1])[0]
    if not self.encoder.mixes_time:
      return query, rows @ target * rows.shape[-1] ** -0.5
    query = query + jnp.expand_dims(target, (0, 1, 2))
    width, time_dim = query.shape[-1], self.config.time.attention_dim
    parts = jnp.array([width - time_dim, time_dim])
    scale = jnp.repeat((width / parts) ** 0.5, parts, total_repeat_length=width)
    query = query * jnp.expand_dims(scale.astype(query.dtype), (0, 1, 2))
    return query, jnp.einsum('bmcd,pd->bmcp', query * width**-0.5, rows)

  def _position_ids(self, length: int) -> Int[Array, ' p']:
    """Time ids of distances 0 to length."""
    exact = self.config.exact_positions
    return jnp.asarray(embeddings.position_ids(length, exact))

  def _values_at(
    self, batch: types.Batch, result: types.SearchResult
  ) -> aggregate.Values:
    """Representation vectors of the behaviors kept."""
    indices = result.indices
    flat = indices.reshape(indices.shape[0], -1)
    ids = {
      field: jnp.take_along_axis(values, flat, axis=1).reshape(indices.shape)
      for field, values in batch.history.ids.items()
    }
    content = self.encoder.lookup('representation', 'behavior', ids)
    return self._values(batch, content, result.distance)

  def _all_values(
    self, batch: types.Batch, distance: Int[Array, 'b m l']
  ) -> aggregate.Values:
    """Representation vectors of all behaviors of the windows."""
    content = self.encoder.lookup(
      'representation', 'behavior', batch.history.ids
    )
    return self._values(batch, content, distance)

  def _values(
    self, batch: types.Batch, content: Any, distance: Int[Array, 'b m ...']
  ) -> aggregate.Values:
    if not self.config.use_time:
      return aggregate.Values(content, None)
    ids = self._position_ids(_length(batch))
    rows = self.encoder.time_rows('representation', 'behavior', ids)
    time = jnp.take(rows, distance, axis=0, mode='clip')
    return aggregate.Values(content, time, self.encoder.mixes_time)

  def _features(
    self,
    batch: types.Batch,
    content: Float[Array, 'b m c d'],
    interest: Float[Array, 'b m c v'],
  ) -> Float[Array, 'b m c f']:
    """Target | interest | target * interest | context, the heads' input."""
    target = content
    if self.config.use_time:
      origin = jnp.zeros((1,), jnp.int32)
      time = self.encoder.time_rows('representation', 'target', origin)[0]
      if self.encoder.mixes_time:
        target = content + jnp.expand_dims(time, (0, 1, 2))
      else:
        time = jnp.broadcast_to(time, (*content.shape[:-1], time.shape[0]))
        target = jnp.concatenate([content, time], axis=-1)
    product = target * interest
    if self.config.only_product:
      parts = [product]
    else:
      parts = [target, interest]
      parts += [product] if self.config.target_aware else []
    for name, table in self.context_tables.items():
      vector = table(batch.context[name])[:, :, None, :]
      parts.append(
        jnp.broadcast_to(vector, (*target.shape[:-1], vector.shape[-1]))
      )
    return jnp.concatenate(parts, axis=-1)


def _length(batch: types.Batch) -> int:
  return batch.history.mask.shape[1]


def _distance(end: Int[Array, 'b m'], length: int) -> Int[Array, 'b m l']:
  """How far back each behavior lies from a moment; 1 is the most recent."""
  index = jnp.arange(length, dtype=end.dtype)
  return jnp.maximum(end[:, :, None] - index[None, None, :], 0)


def visible_behaviors(
  history: types.History,
  end: Int[Array, 'b m'],
  start: Int[Array, 'b m'] | None = None,
) -> Bool[Array, 'b m l']:
  """Returns where a moment has a real behavior from its start to its end."""
  index = jnp.arange(history.mask.shape[1], dtype=end.dtype)[None, None, :]
  visible = history.mask[:, None, :] & (index < end[:, :, None])
  return visible if start is None else visible & (index >= start[:, :, None])
