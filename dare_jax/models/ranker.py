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
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import aggregate
from dare_jax import search as searches
from dare_jax import shapes
from dare_jax import types
from dare_jax.aggregate import by_mask
from dare_jax.models import batch_check
from dare_jax.models import by_windows
from dare_jax.models import head
from dare_jax.models import history_mean
from dare_jax.models import interest_heads
from dare_jax.models import match_terms
from dare_jax.models import parts
from dare_jax.models import ranker_config
from dare_jax.models import real_time
from dare_jax.models import store_clusters
from dare_jax.models import time_encoding
from dare_jax.models import value_reading
from dare_jax.search import matching


class Ranker(nn.Module):
  """Scores targets against histories.

  Collections: `params` (heads, projections, scorer, search), `tables` (all
  embeddings of the history and the targets), `batch_stats`, `constants` where
  something random is fixed (the directions of hashes), and `clusters` where a
  run has grouped the behaviors of its store (`store_clusters`).
  """

  config: ranker_config.RankerConfig

  def setup(self) -> None:
    """Makes the parts that the config names."""
    config = self.config
    self.encoder = parts.encoder(config)
    self.scorer = searches.SCORERS[config.scorer]()
    self.searcher = parts.searcher(config)
    self.matcher = match_terms.MatchTerms(config)
    self.real_time = real_time.RealTime(config)
    self.aggregator = parts.aggregator(config)
    if config.interest_heads > 1:
      self.more_heads = interest_heads.InterestHeads(config.interest_heads - 1)
    self.head = head.of_config(config, config.hidden)
    if config.aux_head:
      self.aux = head.of_config(config, config.aux_hidden)
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

    Raises:
      ValueError: a batch that lacks a field, or has other shapes.
    """
    config = self.config
    batch_check.check(batch, config.content, config.context, config.real_time)
    pool = config.aux_head and (train or self.is_initializing())
    result, pooled = self._attend(batch, pool)
    logits, weights = self._predict(batch, result, train)
    aux_logits = None
    if pooled is not None:
      aux_logits = self._aux_logits(batch, result, pooled, train)
    return types.RankerOutput(
      logits=logits,
      aux_logits=aux_logits,
      search=result,
      weights=weights,
    )

  def logits(self, batch: types.Batch) -> Float[Array, 'b m c']:
    """Returns the logits of a call, summed in another order by `by_mask`."""
    config = self.config
    batch_check.check(batch, config.content, config.context, config.real_time)
    if not self.aggregator.uses_scores or not by_mask.pays(config, batch):
      return self(batch).logits
    result, interest = self._attend(batch, pool=True, only_kept=True)
    assert interest is not None
    target = self.encoder.lookup('representation', 'target', batch.targets.ids)
    features = self._features(batch, result, target, interest)
    return self.head(features, batch.targets.weight > 0, False)

  def encode_history(
    self, history: types.History, categories_apart: bool = False
  ) -> Float[Array, 'b l d']:
    """Returns the search keys of histories: item, category, further fields.

    Positions are not in them: appending a behavior invalidates no key.

    Args:
      history: the histories, whose keys are returned.
      categories_apart: leave out the category's part of the keys, which is
        that of `encode_categories`. For `serving.user_state`.
    """
    if categories_apart:
      return self.encoder.search_keys_without('category', history.ids)
    keys = self.encoder.lookup('attention', 'behavior', history.ids)
    return self._time.scaled(keys)

  def encode_categories(self) -> Float[Array, 'n e']:
    """Returns the category's part of search keys, of all categories."""
    return self.encoder.search_keys_of('category')

  def encode_targets(
    self,
    target_ids: Mapping[str, Int[Array, 'b m c']],
    length: shapes.Size,
    categories_apart: bool = False,
  ) -> tuple[Float[Array, 'b m c d'], Float[Array, ' p'] | Any]:
    """Returns the search queries of targets, and the score of each position.

    Queries, as keys, are of content alone. Positions are the distances 0 to
    `length`; [b, m, c, p] for a plan that mixes time and content.

    Args:
      target_ids: field -> int [b, m, c], ids of the targets.
      length: number of slots of the histories.
      categories_apart: whether keys lack their category part: the dimensions
        for `encode_categories` then come last.
    """
    query = self.encoder.lookup('attention', 'target', target_ids)
    query = self._time.scaled(query)
    bias = self._time.position_scores(query, length)
    if categories_apart:
      query = self.encoder.search_query('category', query)
    return query, bias

  def encode_matches(
    self, target_ids: Mapping[str, Int[Array, 'b m c']]
  ) -> matching.Matching:
    """Returns what targets match, for `user_state.search`."""
    return self.matcher.of_targets(target_ids)

  def encode_gaps(self) -> Float[Array, ' n'] | None:
    """Returns what each kind of gap adds to scores, for `user_state.search`."""
    return self.real_time.bias()

  def encode_mean(self, history: types.History) -> Float[Array, 'b v']:
    """Returns the mean of the behaviors where `mask` holds, for serving."""
    content = self._values.content(history)
    return history_mean.of_moments(content, history.mask[:, None])[:, 0]

  def search(
    self,
    keys: Float[Array, 'b l d'],
    batch: types.Batch,
  ) -> types.SearchResult:
    """Returns the behaviors to keep for each target of a batch.

    Args:
      keys: what `encode_history` returns for the histories of the batch.
      batch: histories, moments and the ids of targets; nothing else is read.
    """
    query, bias = self.encode_targets(batch.targets.ids, keys.shape[1])
    history = store_clusters.look_up(self, batch.history)
    matches = self.matcher.of_targets(batch.targets.ids, batch.rows)
    batch = dataclasses.replace(batch, history=history)
    result, _ = self._find(query, bias, keys, batch, matches)
    return history_mean.added(result, batch, self._values.content, self.config)

  def scores(self, view: searches.SearchView) -> Float[Array, 'b m c l']:
    """Returns the scores of all behaviors: also of matches and real time."""
    scores = self.scorer(view)
    if view.matching.bias:
      scores = scores + view.match_scores()
    of_gaps = self.real_time.scores(view)
    return scores if of_gaps is None else scores + of_gaps

  def score(
    self,
    batch: types.Batch,
    result: types.SearchResult,
    train: bool = False,
  ) -> Float[Array, 'b m c']:
    """Returns the logits given the behaviors found.

    Representation rows are read for those behaviors only.

    Args:
      batch: histories, moments and targets.
      result: what `search` found in the batch.
      train: use and update batch statistics.
    """
    return self._predict(batch, result, train)[0]

  def score_found(
    self,
    batch: types.Batch,
    result: types.SearchResult,
    found_ids: Mapping[str, Int[Array, 'b m c k']],
  ) -> tuple[Float[Array, 'b m c'], Float[Array, 'b m c k']]:
    """Returns logits and weights, for a caller that keeps histories itself.

    Args:
      batch: targets and context; its history's length, the largest distance.
      result: of a search that keeps some behaviors, without `indices`.
      found_ids: field -> int [b, m, c, k]; any where the mask is False.
    """
    values = self._values.of_ids(found_ids, batch, result)
    return self._predict_from(batch, result, values, train=False)

  def _predict(
    self, batch: types.Batch, result: types.SearchResult, train: bool
  ) -> tuple[Float[Array, 'b m c'], Float[Array, 'b m c k']]:
    """Returns the logits, and the weights of the behaviors found."""
    values = self._values.found(batch, result)
    return self._predict_from(batch, result, values, train)

  def _predict_from(
    self,
    batch: types.Batch,
    result: types.SearchResult,
    values: aggregate.Values,
    train: bool,
  ) -> tuple[Float[Array, 'b m c'], Float[Array, 'b m c k']]:
    """Returns what `_predict` does, given the values of the behaviors found."""
    target = self.encoder.lookup('representation', 'target', batch.targets.ids)
    interest, weights = self.aggregator(result, values, target)
    if self.config.interest_heads > 1:
      interest = self.more_heads(interest, result, values, target)
    features = self._features(batch, result, target, interest)
    logits = self.head(features, batch.targets.weight > 0, train)
    return logits, weights

  def _attend(
    self, batch: types.Batch, pool: bool, only_kept: bool = False
  ) -> tuple[types.SearchResult, Float[Array, 'b m c v'] | None]:
    """Returns what the search found, and the whole history pooled.

    A few windows at a time, where there are many scores: see `by_windows`.

    Args:
      batch: histories, moments and targets.
      pool: whether the whole history is pooled by a softmax, too; else None.
      only_kept: pool those alone that the search keeps.
    """
    history = store_clusters.look_up(self, batch.history)
    keys = self.encode_history(history)
    length = keys.shape[1]
    query, bias = self.encode_targets(batch.targets.ids, length)
    content, rows = self._values.all_of(batch) if pool else (None, None)
    shared = bias if bias.ndim == 1 else None  # By all windows: it stays whole.
    matches = self.matcher.of_targets(batch.targets.ids, batch.rows)

    def attend(
      module: Ranker, part: tuple[Any, ...]
    ) -> tuple[types.SearchResult, Any]:
      """Returns what `_attend` does, of some windows."""
      query, bias, keys, content, batch, ids = part
      bias = bias if shared is None else shared
      own = dataclasses.replace(matches, ids=ids)
      result, attention = module._find(query, bias, keys, batch, own, only_kept)
      read = (lambda _: content) if pool else module._values.content
      result = history_mean.added(result, batch, read, self.config)
      if not pool:
        return result, None
      weights = aggregate.masked_softmax(attention.scores, attention.mask)
      values = module._values.pooled(content, rows, batch, attention.distance)
      result = by_mask.without_behaviors(result) if only_kept else result
      return result, values.weigh(weights)

    # Table rows are of the whole batch, and only the head reads the context.
    moments = dataclasses.replace(batch, history=history, context={}, rows={})
    own_bias = bias if shared is None else None
    inputs = query, own_bias, keys, content, moments, matches.ids
    at_once = by_mask.scores_at_once(self.config, only_kept)
    size = by_windows.size(at_once, batch.targets.label[0].size * length)
    return by_windows.apply(self, attend, inputs, size)

  def _aux_logits(
    self,
    batch: types.Batch,
    result: types.SearchResult,
    pooled: Float[Array, 'b m c v'],
    train: bool,
  ) -> Float[Array, 'b m c']:
    """The auxiliary head, on softmax attention over the whole history."""
    target = self.encoder.lookup('representation', 'target', batch.targets.ids)
    features = self._features(batch, result, target, pooled, is_aux=True)
    return self.aux(features, batch.targets.weight > 0, train)

  def _find(
    self,
    query: Float[Array, 'b m c d'],
    bias: Float[Array, ' p'] | Float[Array, 'b m c p'],
    keys: Float[Array, 'b l d'],
    batch: types.Batch,
    matches: matching.Matching,
    as_mask: bool = False,
  ) -> tuple[types.SearchResult, searches.Attention]:
    """Returns what the search finds in a batch, and its attention."""
    view = searches.SearchView(
      query=query,
      keys=keys,
      bias_by_distance=bias,
      bias_by_behavior=self._time.behavior_scores(keys),
      end=batch.end,
      distance=batch.distance(),
      visible=batch.visible(),
      target_ids=batch.targets.ids,
      history=batch.history,
      time_dim=self._time.attention_dim,
      matching=matches,
      gap=self.real_time.gaps(batch),
    )
    found, attention = self.searcher(view, self.scores, as_mask)
    found = self.matcher.found(found, matches, batch)
    return self.real_time.found(found, batch), attention

  @property
  def _time(self) -> time_encoding.TimeEncoding:
    return time_encoding.TimeEncoding(self.encoder, self.config, self.real_time)

  @property
  def _values(self) -> value_reading.ValueReader:
    in_place = self.config.kept_in_place and self.aggregator.uses_scores
    return value_reading.ValueReader(self.encoder, self._time, in_place)

  def _features(
    self,
    batch: types.Batch,
    result: types.SearchResult,
    content: Float[Array, 'b m c d'],
    interest: Float[Array, 'b m c v'],
    is_aux: bool = False,
  ) -> Float[Array, 'b m c f']:
    """Target | interest | product | context | matches | time, main: mean."""
    target = self._time.with_own_time(content)
    tables = self.context_tables.items()
    context = {name: table(batch.context[name]) for name, table in tables}
    made = [head.features(target, interest, context, self.config)]
    made += self.matcher.features(result, made[0].dtype)
    made += self.real_time.features(batch, result, made[0].dtype)
    if not is_aux:  # It is there for the attention, which the mean is not of.
      made += history_mean.features(result, content, self.config)
    return jnp.concatenate(made, axis=-1)
