"""The mutual information that a made log's planted relevance implies.

`logs.builders.synthetic` draws each event's category from its history. For a
long history that process is stationary, and the chance that an event of
category c is followed, k events later, by one of category t is

    A_k[c, t] = (1 - r) q(t) + r sum_c' B_k[c, c'] P(t | c'),
    B_k = (1 - rho) sum_{p >= 1} rho^(p - 1) A_{k - p},

with r the share of events that have a cause, q the popularity, P the affinity
and rho the decay of relevance by position. A_0 is the identity, and A_-m
follows from A_m by Bayes' rule. With exponential decay B_(k+1) = (1 - rho) A_k
+ rho B_k, so that B_1 alone, which looks into the past, is found by iteration.

A clicked target of category t has category c at position p with probability
f(c) A_p[c, t] / f(t), any other target with f(c): that gives the cell's
information. Raw relevance is another thing: the information grows with the
rarity of the target as well, and counts what a behavior brings about by way of
others.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from dare_jax.analysis import information
from dare_jax.logs import id_map
from dare_jax.logs.builders import synthetic

_MOST_CELLS = 1 << 27  # of (position, category, category), in memory
_FORGOTTEN = 8.0  # decays over which the past is followed
_ITERATIONS, _EXACT = 50, 1e-9


class Expected:
  """The information of cells that a planted truth implies.

  Attributes:
    frequency: float64 [categories], f.
    follows: float32 [length, categories, categories], A_p[c, t] at p - 1.
  """

  def __init__(
    self, truth: synthetic.Truth, relevance: float, length: int
  ) -> None:
    """Finds the chances.

    Args:
      truth: the planted relevance; its decay is exponential.
      relevance: share of events that have a cause, below 1.
      length: number of behaviors in a history.
    """
    popularity = np.asarray(truth.popularity, np.float64)
    popularity /= popularity.sum()
    size, width = truth.affinity_ids.shape
    cause = np.repeat(np.arange(size), width)
    weights = np.tile(np.asarray(truth.affinity_weights, np.float64), size)
    affinity = sparse.csr_array(
      (weights, (cause, np.asarray(truth.affinity_ids).ravel())),
      shape=(size, size),
    )
    rho = float(truth.decay[1]) / float(truth.decay[0])
    alone = (1 - relevance) * popularity
    system = np.eye(size) - relevance * affinity.toarray()
    frequency = np.linalg.solve(system.T, alone)
    self.frequency = frequency / frequency.sum()
    self.follows = self._solve(relevance * affinity, alone, rho, length)

  def _solve(
    self, caused: sparse.csr_array, alone: np.ndarray, rho: float, length: int
  ) -> np.ndarray:
    frequency = self.frequency
    size = len(frequency)
    steps = max(length, int(_FORGOTTEN / -np.log(rho)) + 1)
    found = np.zeros((length, size, size), np.float32)
    transposed = caused.T.tocsr()
    first = (1 - rho) * np.eye(size) + rho * frequency[None]
    for _ in range(_ITERATIONS):
      before, past = first, np.zeros((size, size))
      for k in range(1, steps + 1):
        now = alone[None] + (transposed @ before.T).T
        if k <= length:
          found[k - 1] = now
        past += rho**k * now
        before = (1 - rho) * now + rho * before
      reverse = past.T * frequency[None] / frequency[:, None]
      rest = rho ** (steps + 1) / (1 - rho) * frequency[None]
      new = (1 - rho) * (np.eye(size) + reverse + rest)
      change, first = np.abs(new - first).max(), new
      if change < _EXACT:
        break
    return found

  def __call__(self, cells: information.Cells) -> np.ndarray:
    """Returns the expected information of cells, float64 [n], in bits."""
    category = cells.category - id_map.FIRST
    target = cells.target - id_map.FIRST
    bits = np.zeros(len(category))
    made = (category >= 0) & (category < len(self.frequency))
    if not 0 <= target < len(self.frequency):
      return bits
    category, position = category[made], cells.position[made]
    share = self.frequency[category]
    lift = self.follows[position - 1, category, target]
    lift = lift / self.frequency[target]
    bits[made] = information.mutual_information(
      np.minimum(share * lift, 1.0) * cells.num_clicked,
      share * cells.num_other,
      cells.num_clicked,
      cells.num_other,
    )
    return bits


def expected(
  truth: synthetic.Truth, relevance: float, length: int
) -> Expected | None:
  """Returns the expected information; None where it is too much to hold."""
  size = len(truth.popularity)
  if size * size * length > _MOST_CELLS or len(truth.decay) < 2:
    return None
  return Expected(truth, relevance, length)
