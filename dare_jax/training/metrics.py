"""Exact metrics over predictions that merge: shards and batches change nothing.

All sums are float64 on the host. `weight` 0 marks padding. A metric that is
not defined (AUC of one class) is left out of the result.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import io
import pathlib
from typing import Any

from etils import epath
import jax
import numpy as np

from dare_jax.parallel import processes
from dare_jax.training import storage


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Scored targets, flat arrays of equal length [n].

  Attributes:
    logit: float, of a click.
    label: 0 or 1.
    weight: 0 for padding.
    user: int, group of GAUC.
    category: int, group of category GAUC.
    slices: name -> bool, subsets to report AUC of.
    means: name -> float, a metric's own value for each target, to report the
      weighted mean of; NaN where a target has none.
  """

  logit: np.ndarray
  label: np.ndarray
  weight: np.ndarray
  user: np.ndarray
  category: np.ndarray
  slices: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  means: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def take(self, index: np.ndarray) -> Predictions:
    """Returns the targets at some places."""
    return Predictions(**jax.tree.map(lambda x: x[index], _as_dict(self)))

  def compute(self) -> dict[str, float]:
    """Returns all metrics that are defined, by name."""
    real = self.weight > 0
    logit = self.logit[real].astype(np.float64)
    label = self.label[real].astype(np.float64)
    weight = self.weight[real].astype(np.float64)
    prob = 0.5 * (1.0 + np.tanh(0.5 * logit))
    clicks = np.sum(weight * label)
    values = {
      'auc': auc(logit, label, weight),
      'gauc': grouped_auc(logit, label, weight, self.user[real]),
      'category_gauc': grouped_auc(logit, label, weight, self.category[real]),
      'logloss': _mean(np.logaddexp(0.0, logit) - label * logit, weight),
      'accuracy': _mean((logit > 0) == (label > 0.5), weight),
      'calibration': _ratio(np.sum(weight * prob), clicks),
    }
    for name, subset in self.slices.items():
      part = subset[real]
      values[f'auc_{name}'] = auc(logit[part], label[part], weight[part])
    for name, column in self.means.items():
      own = column[real]
      part = ~np.isnan(own)
      values[name] = _mean(own[part], weight[part])
    return {k: float(v) for k, v in values.items() if np.isfinite(v)}


def merge(parts: Iterable[Predictions]) -> Predictions:
  """Returns all predictions as one; the order does not matter to metrics."""
  parts = list(parts)
  joined: dict[str, Any] = {}
  for field in dataclasses.fields(Predictions):
    values = [getattr(part, field.name) for part in parts]
    if isinstance(values[0], dict):
      joined[field.name] = {
        name: np.concatenate([value[name] for value in values])
        for name in values[0]
      }
    else:
      joined[field.name] = np.concatenate(values)
  return Predictions(**joined)


def of_all_processes(parts: list[Predictions]) -> list[Predictions]:
  """Returns everyone's predictions, in the order of a single process.

  Args:
    parts: of each batch, this process's rows; all processes have as many.
  """
  if jax.process_count() == 1:
    return parts
  # [processes, batches, rows]: what a batch holds belongs together.
  stacked = jax.tree.map(lambda *xs: np.stack(xs), *map(_as_dict, parts))
  everyone = jax.tree.map(
    lambda x: np.swapaxes(processes.gather(x), 0, 1), stacked
  )
  return [
    Predictions(**jax.tree.map(lambda x, at=at: x[at].ravel(), everyone))
    for at in range(len(parts))
  ]


def _as_dict(part: Predictions) -> dict[str, Any]:
  names = (field.name for field in dataclasses.fields(Predictions))
  return {name: getattr(part, name) for name in names}


_SAVED = {
  'logit': np.float32,
  'label': np.uint8,
  'weight': np.float32,
  'user': np.int32,
  'category': np.int32,
}


def save(predictions: Predictions, path: epath.PathLike) -> None:
  """Writes an npz of all but slices and means, without the padding.

  The same split of the same data gives the same rows in the same order.
  """
  real = predictions.weight > 0
  arrays = {
    name: getattr(predictions, name)[real].astype(kind)
    for name, kind in _SAVED.items()
  }
  file = io.BytesIO()
  np.savez_compressed(file, allow_pickle=False, **arrays)
  storage.write(storage.locate(path), file.getvalue())


def load(path: pathlib.Path) -> Predictions:
  """Returns what `save` wrote.

  Raises:
    OSError, ValueError, KeyError: it cannot be read, or is something else.
  """
  with np.load(path, allow_pickle=False) as arrays:
    return Predictions(**{name: arrays[name] for name in _SAVED})


def auc(
  scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
  """Returns P(score of a positive > of a negative), ties counting one half.

  NaN if there is only one class.

  >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
  0.875
  """
  wins, positive, negative = _pairs(
    scores, labels, weights, np.zeros(len(scores), np.int64)
  )
  if not len(wins):
    return float('nan')
  return _ratio(wins[0], positive[0] * negative[0])


def grouped_auc(
  scores: np.ndarray,
  labels: np.ndarray,
  weights: np.ndarray | None,
  groups: np.ndarray,
) -> float:
  """Returns the mean AUC of groups, weighted by their number of targets.

  Groups with one class only are left out; NaN if none remains.
  """
  wins, positive, negative = _pairs(scores, labels, weights, groups)
  both = (positive > 0) & (negative > 0)
  wins, positive, negative = wins[both], positive[both], negative[both]
  size = positive + negative
  return _ratio(np.sum(size * wins / (positive * negative)), np.sum(size))


def _pairs(
  scores: np.ndarray,
  labels: np.ndarray,
  weights: np.ndarray | None,
  groups: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Per group: weight of won pairs, of positives, of negatives."""
  if weights is None:
    weights = np.ones(len(scores))
  order = np.lexsort((scores, groups))
  scores, groups = np.asarray(scores)[order], np.asarray(groups)[order]
  is_positive = np.asarray(labels)[order] > 0.5
  weights = np.asarray(weights, np.float64)[order]
  positive = weights * is_positive
  negative = weights * ~is_positive
  if not len(scores):
    return (np.zeros(0),) * 3
  # Not np.diff: the difference of two infinities is not 0.
  new_group = np.append(True, groups[1:] != groups[:-1])
  new_tie = new_group | np.append(True, scores[1:] != scores[:-1])
  group = np.cumsum(new_group) - 1
  tie = np.cumsum(new_tie) - 1
  below = np.cumsum(negative) - negative
  in_tie = np.bincount(tie, negative)[tie]
  before_tie = below[new_tie][tie] - below[new_group][group]
  wins = np.bincount(group, positive * (before_tie + 0.5 * in_tie))
  return wins, np.bincount(group, positive), np.bincount(group, negative)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
  return _ratio(np.sum(values * weights), np.sum(weights))


def _ratio(numerator: float, denominator: float) -> float:
  return float(numerator / denominator) if denominator else float('nan')
