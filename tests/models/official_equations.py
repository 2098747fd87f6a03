"""The published models by their equations, a target at a time, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

import numpy as np

from tests.models import official_state


class Published:
  """The published models by their equations, a target at a time."""

  def __init__(
    self,
    state: Mapping[str, np.ndarray],
    *,
    time: bool = True,
    target_aware: bool = True,
    hard: bool = False,
  ) -> None:
    self.state = state
    self.fields = official_state.FIELDS if time else official_state.FIELDS[:2]
    self.target_aware = target_aware
    self.hard = hard

  def logits(
    self, data: Mapping[str, np.ndarray], train: bool
  ) -> tuple[np.ndarray, np.ndarray]:
    """Click minus no click of the two heads."""
    pairs = [self.features(data, row) for row in range(len(data['iid']))]
    main, aux = (np.stack(x) for x in zip(*pairs, strict=True))
    return (
      self.head('main_mlp', main, train),
      self.head('auxiliary_mlp', aux, train),
    )

  def vector(self, role: str, side: str, ids: tuple[int, ...]) -> list[Any]:
    """The vectors of item, category, time."""
    vectors = []
    for field, index in zip(self.fields, ids, strict=False):
      vector = self.state[official_state.table(field, role, side)][index]
      weight = self.state.get(f'mlp_for_{field}_{role}_of_{side}.weight')
      vectors.append(vector if weight is None else weight @ vector)
    joint = f'mlp_for_{role}_of_{side}'
    if f'{joint}.weight' in self.state:
      whole = np.concatenate(vectors)
      whole = (
        self.state[f'{joint}.weight'] @ whole + self.state[f'{joint}.bias']
      )
      vectors = np.split(whole, np.cumsum([len(x) for x in vectors])[:-1])
    return vectors

  def score(self, query: list[Any], key: list[Any]) -> float:
    q, k = np.concatenate(query[:2]), np.concatenate(key[:2])
    net = 'attention_model.main_model'
    if f'{net}.0.weight' in self.state:
      x = np.concatenate([q, k, q - k, q * k])
      return self.dense(f'{net}.2', self.hidden(net, 0, x))[0] / len(q)
    if self.hard:
      q, k = np.concatenate(query), np.concatenate(key)
    time = query[2] @ key[2] / math.sqrt(len(key[2]))
    return q @ k / math.sqrt(len(q)) + time

  def keep(
    self, data: Mapping[str, np.ndarray], row: int, scores: list[float]
  ) -> list[int]:
    valid = [i for i in range(official_state.LENGTH) if data['mask'][row, i]]
    if not self.hard:
      return sorted(valid, key=lambda i: -scores[i])[: official_state.TOP_K]
    same = [i for i in valid if data['hist_cid'][row, i] == data['cid'][row]]
    kept = same[-official_state.TOP_K :]
    for i in reversed(range(official_state.LENGTH)):
      if len(kept) < official_state.TOP_K and i not in kept:
        kept.append(i)
    return kept

  def features(self, data: Mapping[str, np.ndarray], row: int) -> Any:
    target = (data['iid'][row], data['cid'][row], 0)
    query = self.vector('attention', 'target', target)
    behaviors = [
      (
        data['hist_iid'][row, i],
        data['hist_cid'][row, i],
        official_state.LENGTH - i,
      )
      for i in range(official_state.LENGTH)
    ]
    scores = [
      self.score(query, self.vector('attention', 'behavior', ids))
      for ids in behaviors
    ]
    kept = self.keep(data, row, scores)
    valid = [i for i in range(official_state.LENGTH) if data['mask'][row, i]]
    target = np.concatenate(self.vector('representation', 'target', target))
    features = []
    for chosen in (kept, kept if self.hard else valid):
      weights = np.exp([scores[i] for i in chosen])
      pooled = sum(
        weight
        / sum(weights)
        * np.concatenate(
          self.vector('representation', 'behavior', behaviors[i])
        )
        for weight, i in zip(weights, chosen, strict=True)
      )
      product = [target * pooled] if self.target_aware else []
      features.append(np.concatenate([target, pooled, *product]))
    return features

  def dense(self, name: str, x: np.ndarray) -> np.ndarray:
    return x @ self.state[f'{name}.weight'].T + self.state[f'{name}.bias']

  def hidden(self, mlp: str, layer: int, x: np.ndarray) -> np.ndarray:
    x = self.dense(f'{mlp}.{layer}', x)
    return np.where(x > 0, x, self.state[f'{mlp}.{layer + 1}.weight'] * x)

  def head(self, mlp: str, x: np.ndarray, train: bool) -> np.ndarray:
    norm = lambda what: self.state[f'{mlp}.0.{what}']
    mean, var = norm('running_mean'), norm('running_var')
    if train:
      mean, var = x.mean(0), x.var(0)
    x = (x - mean) / np.sqrt(var + 1e-5) * norm('weight') + norm('bias')
    layer = 1
    for _ in official_state.HIDDEN[mlp]:
      x = self.hidden(mlp, layer, x)
      layer += 2
    x = self.dense(f'{mlp}.{layer}', x)
    return x[:, 0] - x[:, 1]
