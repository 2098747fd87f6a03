"""How lists of positions compare with what they should hold: pure functions.

A list holds positions in a history, the best first; position 1 is the most
recent behavior, and 0 fills up lists that are short. `gain` gives each position
a value, [n, length]; a position that is not there has a gain of -inf.
"""

from __future__ import annotations

import numpy as np


def best(gain: np.ndarray, keep: int) -> np.ndarray:
  """Returns the positions of the highest gains; equal ones by recency.

  >>> best(np.array([[0.1, 0.3, 0.3, -np.inf]]), keep=4)
  array([[2, 3, 1, 0]], dtype=int32)

  Args:
    gain: float [n, length], the gain of each position.
    keep: length of the lists.

  Returns:
    int32 [n, up to keep].
  """
  order = np.argsort(-gain, axis=1, kind='stable')[:, :keep]
  is_there = np.take_along_axis(gain, order, axis=1) > -np.inf
  return np.where(is_there, order + 1, 0).astype(np.int32)


def gains_of(gain: np.ndarray, lists: np.ndarray) -> np.ndarray:
  """Returns the gains of the members of lists, 0 where they are filled up."""
  found = np.take_along_axis(gain, np.maximum(lists - 1, 0), axis=1)
  return np.where(lists > 0, found, 0.0)


def ndcg_curve(
  gain: np.ndarray, lists: np.ndarray, keep: int, of_whole: bool = False
) -> np.ndarray:
  """Returns NDCG@k for k = 1 to `keep`.

      DCG@k = sum_{i <= k} gain_i / log2(i + 1)

  >>> curve = ndcg_curve(np.array([[1.0, 3.0]]), np.array([[1, 2]]), keep=2)
  >>> curve.round(3).tolist()
  [[0.333, 0.797]]

  Args:
    gain: float [n, length], the gain of each position, 0 or more.
    lists: int [n, k], positions from 1, best first; 0: nothing.
    keep: the largest k.
    of_whole: divide by the ideal DCG@keep at each k, as the published scripts
      do; else by that at k.

  Returns:
    float64 [n, keep]; NaN where nothing has a gain.
  """
  discount = 1 / np.log2(np.arange(keep) + 2)
  found = _padded(gains_of(gain, lists[:, :keep]), keep) * discount
  ideal = gains_of(gain, best(gain, keep))
  ideal = np.cumsum(_padded(ideal, keep) * discount, axis=1)
  if of_whole:
    ideal = np.broadcast_to(ideal[:, -1:], ideal.shape)
  result = np.full(found.shape, np.nan)
  dcg = np.cumsum(found, axis=1)
  return np.divide(dcg, ideal, out=result, where=ideal > 0)


def hit_curve(
  lists: np.ndarray, ideal: np.ndarray, keep: int, of_whole: bool = False
) -> np.ndarray:
  """Returns the share of an ideal list that the first k of a list hold.

  >>> hit_curve(np.array([[4, 2, 1]]), np.array([[2, 3, 1]]), keep=3)[0] * 6
  array([0., 3., 4.])

  Args:
    lists: int [n, j], positions from 1, best first; 0: nothing.
    ideal: int [n, i], the ideal lists, best first; 0: nothing.
    keep: the largest k.
    of_whole: compare the first k with all of the ideal's first `keep`, and
      count, as the published scripts do; else with its first k, as a share.

  Returns:
    float64 [n, keep]; NaN where the ideal list is empty.
  """
  lists, ideal = (_padded(x[:, :keep], keep) for x in (lists, ideal))
  same = (lists[:, :, None] == ideal[:, None, :]) & (lists[:, :, None] > 0)
  rank = np.where(same.any(axis=2), same.argmax(axis=2), keep)
  place = np.arange(keep)
  if of_whole:
    return np.cumsum(rank < keep, axis=1).astype(np.float64)
  # A member counts from the k on that both lists have reached it.
  reached = np.where(rank < keep, np.maximum(rank, place), keep)
  hits = (reached[:, :, None] <= place).sum(axis=1)
  there = np.minimum(place + 1, (ideal > 0).sum(axis=1)[:, None])
  result = np.full(hits.shape, np.nan)
  return np.divide(hits, there, out=result, where=there > 0)


def recall_curve(
  lists: np.ndarray, relevant: np.ndarray, keep: int
) -> np.ndarray:
  """Returns which share of what k could hold the first k of a list hold.

  Args:
    lists: int [n, j], positions from 1, best first; 0: nothing.
    relevant: bool [n, length], whether the behavior at each position - 1 is
      relevant.
    keep: the largest k.

  Returns:
    float64 [n, keep]: relevant members of the first k, over the smaller of k
    and the number of relevant positions; NaN where there are none.
  """
  hits = _padded(gains_of(relevant.astype(np.float64), lists[:, :keep]), keep)
  there = relevant.sum(axis=1)[:, None]
  could = np.minimum(np.arange(keep) + 1, there)
  result = np.full(hits.shape, np.nan)
  return np.divide(np.cumsum(hits, axis=1), could, out=result, where=could > 0)


def _padded(lists: np.ndarray, keep: int) -> np.ndarray:
  return np.pad(lists, ((0, 0), (0, keep - lists.shape[1])))
