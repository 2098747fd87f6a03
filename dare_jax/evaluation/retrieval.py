"""How well a search retrieves, on logs where the true relevance is known.

The list of a target are the behaviors that the search kept, the one it scores
highest first. Its gains are the planted relevances; NDCG compares their
discounted sum with that of the best list that the visible history allows:

    DCG = sum_r gain_r / log2(r + 1), r = 1..k       NDCG = DCG / ideal DCG
"""

from __future__ import annotations

import numpy as np

from dare_jax import types
from dare_jax.logs.builders import synthetic
from dare_jax.store import history_store

KEEP = 20
METRIC = f'search_ndcg@{KEEP}'
_CHUNK = 2_000_000  # (target, behavior) pairs whose relevance is held at once


def truth_of(store: history_store.HistoryStore) -> synthetic.Truth | None:
  """Returns what is planted in a store's log; None for a real log.

  Raises:
    UsageError: it is damaged.
  """
  store.check_beside('truth')
  folder = store.path / 'truth'
  return synthetic.load_truth(folder) if folder.is_dir() else None


def search_ndcg(
  truth: synthetic.Truth,
  batch: types.Batch,
  found: tuple[np.ndarray, np.ndarray],
  keep: int = KEEP,
) -> np.ndarray:
  """Returns the NDCG of each positive target, float64 [b, m, c].

  NaN for other targets, and where nothing in the history is relevant.

  Args:
    truth: the planted relevance.
    batch: a batch of NumPy arrays.
    found: int and bool [b, m, c, k], what `found.best` returned.
    keep: length of the best possible list.
  """
  targets = batch.targets
  result = np.full(targets.label.shape, np.nan)
  wanted = (np.asarray(targets.label) > 0.5) & (np.asarray(targets.weight) > 0)
  row, moment, slot = np.nonzero(wanted)
  behavior = np.asarray(batch.history.ids['category'])
  visible = _visible(batch)
  chunk = max(1, _CHUNK // behavior.shape[1])
  for start in range(0, len(row), chunk):
    b, m, c = (index[start : start + chunk] for index in (row, moment, slot))
    distance = batch.end[b, m][:, None] - np.arange(behavior.shape[1])
    relevance = synthetic.relevance(
      truth,
      np.asarray(targets.ids['category'])[b, m, c][:, None],
      behavior[b],
      distance,
    )
    relevance = np.where(visible[b, m], relevance, 0.0)
    indices, is_there = (array[b, m, c] for array in found)
    gains = np.take_along_axis(relevance, indices, axis=1) * is_there
    result[b, m, c] = ndcg(gains, relevance, keep)
  return result


def _visible(batch: types.Batch) -> np.ndarray:
  """Where a moment has a real behavior: bool [b, m, l]."""
  index = np.arange(batch.history.mask.shape[1])
  visible = batch.history.mask[:, None, :] & (index < batch.end[:, :, None])
  if batch.start is not None:
    visible &= index >= batch.start[:, :, None]
  return visible


def ndcg(
  gains: np.ndarray, relevance: np.ndarray, keep: int = KEEP
) -> np.ndarray:
  """Returns the NDCG of lists, NaN where no list could gain.

  >>> ndcg(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]), keep=2)
  array([1.])

  Args:
    gains: float [n, j], gains of a list's members, best first; the first `keep`
      count.
    relevance: float [n, l], gains of everything that could have been in the
      list.
    keep: length of the best possible list.
  """
  keep = min(keep, relevance.shape[1])
  best = -np.partition(-relevance, keep - 1, axis=1)[:, :keep]
  best[:, ::-1].sort(axis=1)
  ideal = _discounted(best)
  result = np.full(len(gains), np.nan)
  found = _discounted(gains[:, :keep])
  return np.divide(found, ideal, out=result, where=ideal > 0)


def _discounted(gains: np.ndarray) -> np.ndarray:
  rank = np.arange(1, gains.shape[1] + 1)
  return gains.astype(np.float64) @ (1 / np.log2(rank + 1))
