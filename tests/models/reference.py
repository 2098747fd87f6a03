"""The ranker, slow and obvious: float64 NumPy, a loop for every letter.

Written from the equations (arXiv 2410.02604, sections 2 and 4; the scaling of
the two parts of a score is the published code's), not from the JAX code. Takes
the same variables and batches.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import numpy as np

from dare_jax import models
from dare_jax import types
from tests.models import match_parts
from tests.models import real_time_parts
from tests.models import reference_parts
from tests.models import vector_parts

_A, _R = 'attention', 'representation'
_BN_EPSILON = 1e-5


@dataclasses.dataclass
class Output:
  """What the reference computes; `kept[b][m][c]` is a list, best first."""

  logits: np.ndarray
  aux_logits: np.ndarray | None
  scores: np.ndarray
  kept: list[list[list[list[int]]]]
  interest: np.ndarray
  batch_stats: Mapping[str, Any]


def top_k(scores: Mapping[int, float], k: int) -> list[int]:
  """The k best of index -> score, best first; of equals the highest index."""
  return sorted(scores, key=lambda i: (-scores[i], -i))[:k]


def rank(
  model: models.Ranker,
  variables: Mapping[str, Any],
  batch: types.Batch,
  train: bool,
) -> Output:
  """Returns logits, and the batch statistics after the step."""
  return _Ranker(model.config, variables, batch).run(train)


class _Ranker:
  """One forward pass."""

  def __init__(
    self, config: models.RankerConfig, variables: Any, batch: Any
  ) -> None:
    self.config = config
    self.params = reference_parts.float64(variables['params'])
    self.stats = reference_parts.float64(variables['batch_stats'])
    self.constants = reference_parts.float64(variables.get('constants', {}))
    self.batch = batch
    self.ids = {k: np.asarray(v) for k, v in batch.history.ids.items()}
    self.target_ids = {k: np.asarray(v) for k, v in batch.targets.ids.items()}
    self.mask = np.asarray(batch.history.mask)
    self.end = np.asarray(batch.end)
    self.clusters = batch.history.clusters
    tables = reference_parts.float64(variables['tables'])['encoder']
    self.vectors = vector_parts.Vectors(config, tables, self.params)
    self.match = match_parts.Matches(config, self.params, batch)
    self.real = real_time_parts.RealTime(config, self.params, batch)
    # Of the behaviors that a moment sees, or of their clusters.
    self.position: dict[int, int] = {}
    self.seen: list[int] = []
    self.size: dict[int, int] = {}

  def run(self, train: bool) -> Output:
    num_windows, num_moments, num_candidates = self.batch.targets.label.shape
    length = self.mask.shape[1]
    shape = (num_windows, num_moments, num_candidates)
    scores = np.full((*shape, length), np.nan)
    features = np.empty(shape, object)
    aux_features = np.empty(shape, object)
    interest = np.empty(shape, object)
    kept = [
      [[[] for _ in range(shape[2])] for _ in range(shape[1])]
      for _ in range(shape[0])
    ]
    for b in range(num_windows):
      for m in range(num_moments):
        visible = [
          i for i in range(length) if self.mask[b, i] and i < self.end[b, m]
        ]
        self.seen = visible
        self.position = {i: self.end[b, m] - i for i in visible}
        self.size = dict.fromkeys(visible, 1)
        if self.config.search == 'clusters' and self.clusters is not None:
          visible = self.merge_clusters(b, visible)
        for c in range(num_candidates):
          of_behavior = {i: self.score(b, m, c, i) for i in visible}
          for i, score in of_behavior.items():
            scores[b, m, c, i] = score
          kept[b][m][c] = self.keep(b, m, c, of_behavior)
          found = [of_behavior[i] for i in kept[b][m][c]]
          if self.config.aggregation == 'buckets':
            pooled = self.sum_buckets(b, m, c, kept[b][m][c])
          else:
            pooled = self.pool(b, m, kept[b][m][c], found)
          interest[b, m, c] = pooled
          parts = [self.features(b, m, c, pooled)]
          if self.config.history_mean:
            parts += self.mean_features(b, m, c)
          features[b, m, c] = np.concatenate(parts)
          among = kept[b][m][c] if self.config.search == 'category' else visible
          own = [of_behavior[i] for i in among]
          if self.config.search == 'projected':
            own = [self.own_score(b, m, c, i) for i in among]
          pooled = self.pool(b, m, among, own)
          aux_features[b, m, c] = self.features(b, m, c, pooled)
    logits, stats = self.head('head', features, train)
    aux_logits, batch_stats = None, {'head': stats}
    if self.config.aux_head:
      aux_logits, batch_stats['aux'] = self.head('aux', aux_features, train)
    return Output(
      logits=logits,
      aux_logits=aux_logits,
      scores=scores,
      kept=kept,
      interest=np.stack(interest.ravel().tolist()).reshape(*shape, -1),
      batch_stats=batch_stats,
    )

  def keep(
    self, b: int, m: int, c: int, scores: Mapping[int, float]
  ) -> list[int]:
    """The behaviors that the search keeps, best first."""
    search, k = self.config.search, self.config.top_k
    if search == 'all':
      return top_k(scores, len(scores))
    if search == 'category':
      wanted = self.target_ids['category'][b, m, c]
      same = {i: self.ids['category'][b, i] == wanted for i in scores}
      return sorted(scores, key=lambda i: (not same[i], -i))[:k]
    if search == 'projected':
      own = {i: self.own_score(b, m, c, i) for i in scores}
      return top_k(own, k)
    if search == 'simhash':
      directions = self.constants['searcher']['directions']
      query = self.vectors.content(_A, 'target', self.target_ids, (b, m, c))
      differ = {}
      for i in scores:
        key = self.vectors.content(_A, 'behavior', self.ids, (b, i))
        bits = (query @ directions > 0) != (key @ directions > 0)
        differ[i] = -float(bits.sum())
      return top_k(differ, k)
    return top_k(scores, k)

  def merge_clusters(self, b: int, visible: list[int]) -> list[int]:
    """Each cluster becomes its best member, at the mean position of all."""
    groups: dict[int, list[int]] = {}
    for i in visible:
      groups.setdefault(int(self.clusters.cluster[b, i]), []).append(i)
    rank = np.asarray(self.clusters.rank[b])
    position, size = {}, {}
    for members in groups.values():
      best = min(members, key=lambda i: (rank[i], -i))
      total = sum(int(self.position[i]) for i in members)
      # Halves round up.
      position[best] = max(math.floor(total / len(members) + 0.5), 1)
      size[best] = len(members)
    self.position, self.size = position, size
    return sorted(position)

  def own_score(self, b: int, m: int, c: int, i: int) -> float:
    """<W_a q, W_b k> / sqrt(search dim), of SIM's soft search."""
    query = self.vectors.content(_A, 'target', self.target_ids, (b, m, c))
    key = self.vectors.content(_A, 'behavior', self.ids, (b, i))
    maps = self.params['searcher']
    left = query @ maps['target']['kernel']
    right = key @ maps['behavior']['kernel']
    return float(left @ right) / math.sqrt(len(left))

  def sum_buckets(self, b: int, m: int, c: int, kept: list[int]) -> np.ndarray:
    """SDIM: the mean over rounds of the unit sum of the target's bucket."""
    directions = self.constants['aggregator']['directions']
    width = self.config.hash_width
    rounds = directions.shape[1] // width
    target = self.vectors.content(_R, 'target', self.target_ids, (b, m, c))
    total = np.zeros(self.vectors.value_width())
    for g in range(rounds):
      part = directions[:, g * width : (g + 1) * width]
      bucket = np.zeros_like(total)
      for i in kept:
        content = self.vectors.content(_R, 'behavior', self.ids, (b, i))
        if np.array_equal(content @ part > 0, target @ part > 0):
          bucket += self.value(b, m, i)
      length = np.linalg.norm(bucket)
      if length > 0:
        total += bucket / length
    return total / rounds

  def score(self, b: int, m: int, c: int, i: int) -> float:
    """Content and time, each scaled by its own width, or a network's."""
    query, query_time = self.vectors.whole(
      _A, 'target', self.target_ids, (b, m, c), 0
    )
    key, key_time = self.vectors.whole(
      _A, 'behavior', self.ids, (b, i), self.position[i]
    )
    time = math.log(self.size[i]) + self.match.score(b, m, c, i)
    time += self.real.score(b, m, i)
    if self.config.use_time:
      time += float(query_time @ key_time) / math.sqrt(len(query_time))
    if self.config.scorer == 'network':
      net = self.params['scorer']
      pair = np.concatenate([query, key, query - key, query * key])
      x = pair @ net['hidden']['kernel'] + net['hidden']['bias']
      x = np.where(x >= 0, x, net['slope']['negative_slope'] * x)
      x = x @ net['score']['kernel'] + net['score']['bias']
      return float(x[0]) / len(query) + time
    if self.config.scorer == 'dot_time_twice':
      both = float(query @ key) + float(query_time @ key_time)
      return both / math.sqrt(len(query) + len(query_time)) + time
    return float(query @ key) / math.sqrt(len(query)) + time

  def mean_features(self, b: int, m: int, c: int) -> list[np.ndarray]:
    """The mean of all that is seen, and its product with the target."""
    target = self.vectors.content(_R, 'target', self.target_ids, (b, m, c))
    seen = [
      self.vectors.content(_R, 'behavior', self.ids, (b, i)) for i in self.seen
    ]
    mean = sum(seen, np.zeros(len(target))) / max(len(seen), 1)
    product = [target * mean] * self.config.target_aware
    return product if self.config.only_product else [mean, *product]

  def value(self, b: int, m: int, i: int) -> np.ndarray:
    content, time = self.vectors.whole(
      _R, 'behavior', self.ids, (b, i), self.position[i]
    )
    whole, real = np.concatenate([content, time]), self.real.vector(b, m, i)
    if not self.config.use_time:
      return np.concatenate([whole, real])
    if 'gap' in self.config.real_time:
      whole[-len(real) :] += real
    return whole

  def pool(
    self, b: int, m: int, kept: list[int], scores: list[float]
  ) -> np.ndarray:
    total = np.zeros(self.vectors.value_width())
    for i, weight in zip(kept, reference_parts.softmax(scores), strict=True):
      total += weight * self.value(b, m, i)
    return total

  def features(self, b: int, m: int, c: int, pooled: np.ndarray) -> np.ndarray:
    target = np.concatenate(
      self.vectors.whole(_R, 'target', self.target_ids, (b, m, c), 0)
    )
    target = np.concatenate([target, self.real.own_vector()])
    parts = [target, pooled]
    if self.config.only_product:
      parts = [target * pooled]
    elif self.config.target_aware:
      parts.append(target * pooled)
    for feature in self.config.context:
      table = self.params[f'context_tables_{feature.name}']['embedding']
      parts.append(table[np.asarray(self.batch.context[feature.name])[b, m]])
    same = self.match.of_target(b, m, c, self.seen)
    parts += [np.array(self.match.features(b, m, same))]
    of_time = self.real.features(b, m, self.seen, same)
    parts.append(np.array(of_time))
    return np.concatenate(parts)

  def head(
    self, name: str, features: np.ndarray, train: bool
  ) -> tuple[np.ndarray, Any]:
    params = self.params[name]
    real = np.asarray(self.batch.targets.weight) > 0
    stats = self.stats[name]['BatchNorm_0']
    mean, var = stats['mean'], stats['var']
    if train:
      rows = np.stack(
        [x for x, r in zip(features.ravel(), real.ravel(), strict=True) if r]
      )
      mean = sum(rows) / len(rows)
      var = sum((row - mean) ** 2 for row in rows) / len(rows)
      stats = reference_parts.moved(
        stats, (mean, var), len(rows), self.config.norm_momentum
      )
    norm = params['BatchNorm_0']
    logits = np.empty(features.shape)
    widths = self.config.hidden if name == 'head' else self.config.aux_hidden
    for index in np.ndindex(features.shape):
      x = (features[index] - mean) / np.sqrt(var + _BN_EPSILON)
      x = x * norm['scale'] + norm['bias']
      for layer in range(len(widths)):
        dense = params[f'Dense_{layer}']
        x = x @ dense['kernel'] + dense['bias']
        x = np.where(x >= 0, x, params[f'PReLU_{layer}']['negative_slope'] * x)
      dense = params[f'Dense_{len(widths)}']
      logits[index] = (x @ dense['kernel'] + dense['bias'])[0]
    return logits, {'BatchNorm_0': stats}
