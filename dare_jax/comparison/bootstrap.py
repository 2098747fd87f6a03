"""Is the difference in AUC of two models more than chance? Paired, by users.

All runs of a comparison are tested on the same rows, so what is hard about them
is the same for all and cancels in a difference. What chance there is in the
choice of the test users is estimated by the cluster bootstrap: users are drawn
with replacement, as many as there are, 1000 times; a user drawn twice has all
of its rows count twice; the AUC of every run is computed anew on the same
draws. The 95 % confidence interval of a difference lies between the 2.5th and
97.5th percentile of its replicates. With several seeds, the mean over the
seeds of the differences (seed s of one model minus seed s of the other) is
what is replicated, on the same draws for all seeds.

The interval speaks about other users, not about other seeds: the spread over
the seeds is reported beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from dare_jax.evaluation import metrics

REPLICATES = 1000
_CHUNK = 100_000  # weights held at once; more leave the cache


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A number with its 95 % confidence interval."""

  mean: float
  low: float
  high: float


class WeightedAuc:
  """The AUC of fixed predictions as a function of the weights of users.

  Sorting comes first, once: with the negatives in the order of their scores, a
  positive wins over those below it, whose weights are a cumulative sum, and
  half over those that tie with it. So each set of weights costs no more than
  some passes over the rows.
  """

  def __init__(self, predictions: metrics.Predictions) -> None:
    _, user = np.unique(predictions.user, return_inverse=True)
    self.num_users = int(user.max(initial=-1)) + 1
    weight = predictions.weight.astype(np.float64)
    positive = np.flatnonzero(predictions.label > 0.5)
    negative = np.flatnonzero(predictions.label <= 0.5)
    logit = predictions.logit
    self._has_nan = bool(np.isnan(logit[weight > 0]).any())
    negative = negative[np.argsort(logit[negative])]
    below = logit[negative]
    self._user = user[positive], user[negative]
    self._weight = weight[positive], weight[negative]
    self._first = np.searchsorted(below, logit[positive], side='left')
    self._last = np.searchsorted(below, logit[positive], side='right')

  def __call__(self, counts: np.ndarray) -> np.ndarray:
    """Returns AUCs [r] for the weights `counts` [r, users] of the users.

    NaN where the weights leave one class only, and of logits that are NaN.
    """
    positive, negative = (
      counts[:, user] * weight
      for user, weight in zip(self._user, self._weight, strict=True)
    )
    cumulative = np.zeros((len(counts), negative.shape[1] + 1))
    np.cumsum(negative, axis=1, out=cumulative[:, 1:])
    wins = cumulative[:, self._first] + cumulative[:, self._last]
    won = 0.5 * np.einsum('rp,rp->r', positive, wins)
    pairs = positive.sum(axis=1) * cumulative[:, -1]
    result = np.full(len(counts), np.nan)
    defined = (pairs > 0) & (not self._has_nan)
    return np.divide(won, pairs, out=result, where=defined)


def replicates(
  predictions: metrics.Predictions, number: int = REPLICATES
) -> np.ndarray:
  """Returns AUCs [1 + number]: of the rows, then of the draws of users.

  Draw i is the same for all predictions with the same users.
  """
  auc = WeightedAuc(predictions)
  users = auc.num_users
  chunk = max(1, _CHUNK // max(1, len(predictions.label)))
  parts = [auc(np.ones((1, users)))]
  for start in range(0, number, chunk):
    draws = range(start, min(start + chunk, number))
    parts.append(auc(np.stack([_draw(users, index) for index in draws])))
  return np.concatenate(parts)


def _draw(users: int, index: int) -> np.ndarray:
  """How often each user is in draw `index`."""
  rng = np.random.default_rng([users, index])
  return np.bincount(rng.integers(users, size=users), minlength=users)


def difference(
  ours: Sequence[np.ndarray], base: Sequence[np.ndarray]
) -> Estimate:
  """Returns the mean difference in AUC over the seeds, with its interval.

  Args:
    ours: float [replicates] for each seed of our model, as `replicates` returns
      it.
    base: float [replicates] for each seed of the model compared with, likewise.
  """
  mean = np.mean([x - y for x, y in zip(ours, base, strict=True)], axis=0)
  low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
  return Estimate(float(mean[0]), float(low), float(high))
