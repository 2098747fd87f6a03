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

# (role, side) -> table, for each plan.
_A, _R = 'attention', 'representation'
_TABLES = {
  'shared': {
    (_A, 'target'): 'shared',
    (_A, 'behavior'): 'shared',
    (_R, 'target'): 'shared',
    (_R, 'behavior'): 'shared',
  },
  'decoupled': {
    (_A, 'target'): 'attention',
    (_A, 'behavior'): 'attention',
    (_R, 'target'): 'representation',
    (_R, 'behavior'): 'representation',
  },
  'three': {
    (_A, 'target'): 'attention_target',
    (_A, 'behavior'): 'attention_behavior',
    (_R, 'target'): 'representation',
    (_R, 'behavior'): 'representation',
  },
  'four': {
    (_A, 'target'): 'attention_target',
    (_A, 'behavior'): 'attention_behavior',
    (_R, 'target'): 'representation_target',
    (_R, 'behavior'): 'representation_behavior',
  },
}
_TABLES['projected'] = _TABLES['shared']

_BN_EPSILON = 1e-5
_BN_MOMENTUM = 0.9


@dataclasses.dataclass
class Output:
  """What the reference computes; `kept[b][m][c]` is a list, best first."""

  logits: np.ndarray
  aux_logits: np.ndarray
  scores: np.ndarray
  kept: list[list[list[list[int]]]]
  interest: np.ndarray
  batch_stats: Mapping[str, Any]


def time_id(distance: int, exact: int) -> int:
  """Distance itself, then 8 ids a doubling: exact * 2^(j/8) <= distance."""
  if distance <= exact:
    return distance
  j = 0
  while distance**8 >= exact**8 * 2 ** (j + 1) and j < 127:
    j += 1
  return exact + 1 + j


def top_k(scores: Mapping[int, float], k: int) -> list[int]:
  """The k best of index -> score, best first; of equals the highest index."""
  return sorted(scores, key=lambda i: (-scores[i], -i))[:k]


def softmax(scores: list[float]) -> list[float]:
  """Softmax of a list; of an empty one, an empty one."""
  if not scores:
    return []
  peak = max(scores)
  powers = [math.exp(score - peak) for score in scores]
  return [power / sum(powers) for power in powers]


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
    self.tables = _float64(variables['tables'])['encoder']
    self.params = _float64(variables['params'])
    self.stats = _float64(variables['batch_stats'])
    self.batch = batch
    self.ids = {k: np.asarray(v) for k, v in batch.history.ids.items()}
    self.target_ids = {k: np.asarray(v) for k, v in batch.targets.ids.items()}
    self.mask = np.asarray(batch.history.mask)
    self.end = np.asarray(batch.end)

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
        for c in range(num_candidates):
          of_behavior = {i: self.score(b, m, c, i) for i in visible}
          for i, score in of_behavior.items():
            scores[b, m, c, i] = score
          k = self.config.top_k if self.config.search == 'score' else length
          kept[b][m][c] = top_k(of_behavior, k)
          pooled = self.pool(b, m, of_behavior, kept[b][m][c])
          interest[b, m, c] = pooled
          features[b, m, c] = self.features(b, m, c, pooled)
          pooled = self.pool(b, m, of_behavior, visible)
          aux_features[b, m, c] = self.features(b, m, c, pooled)
    logits, stats = self.head('head', features, train)
    aux_logits, aux_stats = self.head('aux', aux_features, train)
    return Output(
      logits=logits,
      aux_logits=aux_logits,
      scores=scores,
      kept=kept,
      interest=np.stack(interest.ravel().tolist()).reshape(*shape, -1),
      batch_stats={'head': stats, 'aux': aux_stats},
    )

  def vector(self, field: str, role: str, side: str, index: int) -> np.ndarray:
    suffix = _TABLES[self.config.plan][role, side]
    row = self.tables[f'{field}_{suffix}'][index]
    if self.config.plan != 'projected':
      return row
    kernels = self.params['encoder']
    return row @ kernels[f'projection_{field}_{role}_{side}']['kernel']

  def content(
    self, role: str, side: str, ids: Mapping[str, np.ndarray], where: Any
  ) -> np.ndarray:
    return np.concatenate(
      [
        self.vector(feature.name, role, side, ids[feature.name][where])
        for feature in self.config.content
      ]
    )

  def time(self, role: str, side: str, distance: int) -> np.ndarray:
    index = time_id(distance, self.config.exact_positions)
    return self.vector('time', role, side, index)

  def score(self, b: int, m: int, c: int, i: int) -> float:
    """<q, k_l> / sqrt(content width) + <q_time, k_time> / sqrt(its width)."""
    query = self.content(_A, 'target', self.target_ids, (b, m, c))
    key = self.content(_A, 'behavior', self.ids, (b, i))
    query_time = self.time(_A, 'target', 0)
    key_time = self.time(_A, 'behavior', self.end[b, m] - i)
    return float(
      query @ key / math.sqrt(len(query))
      + query_time @ key_time / math.sqrt(len(query_time))
    )

  def pool(
    self, b: int, m: int, scores: Mapping[int, float], kept: list[int]
  ) -> np.ndarray:
    dims = [f.representation_dim for f in self.config.content]
    total = np.zeros(sum(dims) + self.config.time.representation_dim)
    weights = softmax([scores[i] for i in kept])
    for i, weight in zip(kept, weights, strict=True):
      content = self.content(_R, 'behavior', self.ids, (b, i))
      time = self.time(_R, 'behavior', self.end[b, m] - i)
      total += weight * np.concatenate([content, time])
    return total

  def features(self, b: int, m: int, c: int, pooled: np.ndarray) -> np.ndarray:
    content = self.content(_R, 'target', self.target_ids, (b, m, c))
    target = np.concatenate([content, self.time(_R, 'target', 0)])
    parts = [target, pooled]
    if self.config.target_aware:
      parts.append(target * pooled)
    for feature in self.config.context:
      table = self.params[f'context_tables_{feature.name}']['embedding']
      parts.append(table[np.asarray(self.batch.context[feature.name])[b, m]])
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
      stats = {
        'mean': _BN_MOMENTUM * stats['mean'] + (1 - _BN_MOMENTUM) * mean,
        'var': _BN_MOMENTUM * stats['var'] + (1 - _BN_MOMENTUM) * var,
      }
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


def _float64(tree: Any) -> Any:
  if isinstance(tree, Mapping):
    return {name: _float64(value) for name, value in tree.items()}
  return np.asarray(tree).astype(np.float64)
