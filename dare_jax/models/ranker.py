"""The ranker: search, then aggregate, then predict. One module for all models.

A model is four choices (plan, scorer, search, aggregation) and some sizes. No
code here, or elsewhere, asks for a model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

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
    target_aware: feed the head target * interest as well (the paper's TR).
    exact_positions: behaviors back that have a time id of their own.
    hidden: widths of the main head.
    aux_hidden: widths of the auxiliary head; None: no such head.
    attention_init: standard deviation s of fresh attention tables. Wide enough,
      a behavior that equals the target stands out from the first step on: its
      score is about s^2 sqrt(d), that of others s^2 from zero.
    representation_init: of fresh representation and shared tables.
  """

  content: tuple[embeddings.Feature, ...]
  time: embeddings.Feature
  context: tuple[ContextFeature, ...] = ()
  plan: str = 'decoupled'
  scorer: str = 'dot'
  search: str = 'score'
  aggregation: str = 'softmax'
  top_k: int = 20
  target_aware: bool = True
  exact_positions: int = 200
  hidden: tuple[int, ...] = (200, 80)
  aux_hidden: tuple[int, ...] | None = (200,)
  attention_init: float = 0.5
  representation_init: float = 0.1


class Ranker(nn.Module):
  """Scores targets against histories.

  Collections: `params` (heads, projections), `tables` (all embeddings of the
  history and the targets), `batch_stats`.
  """

  config: RankerConfig

  def setup(self) -> None:
    config = self.config
    self.encoder = embeddings.FeatureEncoder(
      content=config.content,
      time=config.time,
      plan=embeddings.PLANS[config.plan],
      init_std={
        'attention': config.attention_init,
        'representation': config.representation_init,
      },
    )
    self.scorer = searches.SCORERS[config.scorer]()
    self.searcher = searches.SEARCHES[config.search](top_k=config.top_k)
    self.aggregator = aggregate.AGGREGATIONS[config.aggregation]()
    self.head = head.Head(config.hidden)
    if config.aux_hidden is not None:
      self.aux = head.Head(config.aux_hidden)
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
    view = self._view(keys, batch.history, batch.end, batch.targets.ids)
    result = self.searcher(view, self.scorer)
    logits = self.score(batch, result, train)
    aux_logits = None
    if self.config.aux_hidden is not None:
      if train or self.is_initializing():
        aux_logits = self._full_attention_logits(batch, view, train)
    return types.RankerOutput(
      logits=logits, aux_logits=aux_logits, extra_losses={}, search=result
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
  ) -> types.SearchResult:
    """Returns the behaviors to keep for each target, from ready keys."""
    view = self._view(keys, history, end, target_ids)
    return self.searcher(view, self.scorer)

  def score(
    self,
    batch: types.Batch,
    result: types.SearchResult,
    train: bool = False,
  ) -> Float[Array, 'b m c']:
    """Returns the logits given the behaviors found.

    Representation rows are read for those behaviors only.
    """
    values = self._values_at(batch, result.indices)
    interest = self.aggregator(result.scores, result.mask, values)
    features = self._features(batch, interest)
    return self.head(features, batch.targets.weight > 0, train)

  def _view(
    self,
    keys: Float[Array, 'b l d'],
    history: types.History,
    end: Int[Array, 'b m'],
    target_ids: Mapping[str, Int[Array, 'b m c']],
  ) -> searches.SearchView:
    distance = _distance(end, keys.shape[1])
    bias = self._time_bias(keys.shape[1])
    return searches.SearchView(
      query=self.encoder.lookup('attention', 'target', target_ids),
      keys=keys,
      time_bias=jnp.take(bias, distance, mode='clip'),
      visible=visible_behaviors(history, end),
      target_ids=target_ids,
      history_ids=history.ids,
    )

  def _time_bias(self, length: int) -> Float[Array, ' l']:
    """The score of each distance 0..length, the same for every target."""
    ids = self._position_ids(length)
    rows = self.encoder.time_rows('attention', 'behavior', ids)
    target = self.encoder.time_rows('attention', 'target', ids[:1])
    return rows @ target[0] * rows.shape[-1] ** -0.5

  def _position_ids(self, length: int) -> Int[Array, ' l']:
    exact = self.config.exact_positions
    return jnp.asarray(embeddings.position_ids(length, exact))

  def _values_at(
    self, batch: types.Batch, indices: Int[Array, 'b m c k']
  ) -> Float[Array, 'b m c k d']:
    """Representation vectors of behaviors, content | time."""
    flat = indices.reshape(indices.shape[0], -1)
    ids = {
      field: jnp.take_along_axis(values, flat, axis=1).reshape(indices.shape)
      for field, values in batch.history.ids.items()
    }
    content = self.encoder.lookup('representation', 'behavior', ids)
    position = self._position_ids(batch.history.mask.shape[1])
    rows = self.encoder.time_rows('representation', 'behavior', position)
    distance = jnp.maximum(batch.end[:, :, None, None] - indices, 0)
    time = jnp.take(rows, distance, axis=0, mode='clip')
    return jnp.concatenate([content, time], axis=-1)

  def _full_attention_logits(
    self, batch: types.Batch, view: searches.SearchView, train: bool
  ) -> Float[Array, 'b m c']:
    """The auxiliary head: attention over all visible behaviors."""
    weights = aggregate.masked_softmax(
      self.scorer(view), view.visible[:, :, None, :]
    )
    length = batch.history.mask.shape[1]
    values = self.encoder.lookup(
      'representation', 'behavior', batch.history.ids
    )
    rows = self.encoder.time_rows(
      'representation', 'behavior', self._position_ids(length)
    )
    time = jnp.take(rows, _distance(batch.end, length), axis=0, mode='clip')
    interest = jnp.concatenate(
      [
        jnp.einsum('bmcl,bld->bmcd', weights, values),
        jnp.einsum('bmcl,bmld->bmcd', weights, time),
      ],
      axis=-1,
    )
    features = self._features(batch, interest)
    return self.aux(features, batch.targets.weight > 0, train)

  def _features(
    self, batch: types.Batch, interest: Float[Array, 'b m c d']
  ) -> Float[Array, 'b m c f']:
    """Target | interest | target * interest | context, the heads' input."""
    content = self.encoder.lookup('representation', 'target', batch.targets.ids)
    origin = jnp.zeros((1,), jnp.int32)
    time = self.encoder.time_rows('representation', 'target', origin)[0]
    time = jnp.broadcast_to(time, (*content.shape[:-1], time.shape[0]))
    target = jnp.concatenate([content, time], axis=-1)
    parts = [target, interest]
    if self.config.target_aware:
      parts.append(target * interest)
    for name, table in self.context_tables.items():
      vector = table(batch.context[name])[:, :, None, :]
      parts.append(
        jnp.broadcast_to(vector, (*target.shape[:-1], vector.shape[-1]))
      )
    return jnp.concatenate(parts, axis=-1)


def _distance(end: Int[Array, 'b m'], length: int) -> Int[Array, 'b m l']:
  """How far back each behavior lies from a moment; 1 is the most recent."""
  index = jnp.arange(length, dtype=end.dtype)
  return jnp.maximum(end[:, :, None] - index[None, None, :], 0)


def visible_behaviors(
  history: types.History, end: Int[Array, 'b m']
) -> Bool[Array, 'b m l']:
  """Returns where a moment has a real behavior before its end."""
  index = jnp.arange(history.mask.shape[1], dtype=end.dtype)
  before = index[None, None, :] < end[:, :, None]
  return history.mask[:, None, :] & before
