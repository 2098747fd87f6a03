"""Exact metrics over predictions that merge: shards and batches change nothing.

All sums are float64 on the host. `weight` 0 marks padding. A metric that is
not defined (AUC of one class, anything of logits that are no numbers) is left
out of the result, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import io
import os
import pathlib
from typing import TypeVar

from flax import struct
import jax
import numpy as np

from dare_jax.parallel import processes

_Tree = TypeVar('_Tree')


@dataclasses.dataclass(frozen=True)
class Report:
  """The metrics of some predictions.

  Attributes:
    values: metric -> value, of the metrics that are defined.
    left_out: metric -> why it is not defined.
  """

  values: dict[str, float]
  left_out: dict[str, str]


@struct.dataclass
class Predictions:
  """Scored targets, flat arrays of equal length [n].

  Attributes:
    logit: float [n], the logit of a click.
    label: [n], 1 for a click, else 0.
    weight: float [n], the weight of each target; 0 for padding.
    user: int [n], the user, by whom GAUC groups.
    category: int [n], the target's category, by which category GAUC groups.
    slices: name -> bool [n], subsets of which the AUC is reported.
    means: name -> float [n], values of which the weighted mean is reported; NaN
      where a target has none.
  """

  logit: np.ndarray
  label: np.ndarray
  weight: np.ndarray
  user: np.ndarray
  category: np.ndarray
  slices: dict[str, np.ndarray] = struct.field(default_factory=dict)
  means: dict[str, np.ndarray] = struct.field(default_factory=dict)

  def compute(self) -> dict[str, float]:
    """Returns all metrics that are defined, by name."""
    return self.report().values

  def report(self) -> Report:
    """Returns all metrics, and why those are left out that are not defined."""
    real = jax.tree.map(lambda array: array[self.weight > 0], self)
    scored = _Scored(
      real.logit.astype(np.float64),
      real.label.astype(np.float64),
      real.weight.astype(np.float64),
    )
    found: dict[str, _Found] = {
      'auc': scored.auc(),
      'gauc': scored.grouped_auc(real.user),
      'category_gauc': scored.grouped_auc(real.category),
      **scored.pointwise(),
    }
    for name, subset in real.slices.items():
      found[f'auc_{name}'] = scored.take(subset).auc()
    for name, column in real.means.items():
      has = ~np.isnan(column)
      found[name] = (
        _mean(column[has], scored.weight[has])
        if has.any()
        else 'no target has a value'
      )
    return Report(
      values={k: v for k, v in found.items() if not isinstance(v, str)},
      left_out={k: v for k, v in found.items() if isinstance(v, str)},
    )


# The value of a metric, or the reason why it has none.
_Found = float | str


@dataclasses.dataclass(frozen=True)
class _Scored:
  """Real targets: float64 [n]. All weights are above 0."""

  logit: np.ndarray
  label: np.ndarray
  weight: np.ndarray

  def take(self, subset: np.ndarray) -> _Scored:
    return _Scored(self.logit[subset], self.label[subset], self.weight[subset])

  def pointwise(self) -> dict[str, _Found]:
    """Returns the metrics that are means over single targets."""
    if reason := self._not_scored():
      return dict.fromkeys(('logloss', 'accuracy', 'calibration'), reason)
    logit, label, weight = self.logit, self.label, self.weight
    clicks = np.sum(weight * label)
    prob = 0.5 * (1.0 + np.tanh(0.5 * logit))
    infinite = int(np.isinf(logit).sum())
    return {
      'logloss': (
        f'{infinite:,} of {len(logit):,} logits are infinite'
        if infinite
        else _mean(np.logaddexp(0.0, logit) - label * logit, weight)
      ),
      'accuracy': _mean((logit > 0) == (label > 0.5), weight),
      'calibration': (
        float(np.sum(weight * prob) / clicks)
        if clicks
        else 'no target has label 1'
      ),
    }

  def auc(self) -> _Found:
    """Returns the AUC, or why there is none."""
    return (
      self._not_scored()
      or self._of_one_class()
      or auc(self.logit, self.label, self.weight)
    )

  def grouped_auc(self, groups: np.ndarray) -> _Found:
    """Returns the AUC within groups, weighted; or why there is none."""
    if reason := self._not_scored() or self._of_one_class():
      return reason
    value = grouped_auc(self.logit, self.label, self.weight, groups)
    return 'no group has both labels' if np.isnan(value) else value

  def _not_scored(self) -> str | None:
    """Why no metric is defined, if so."""
    if not len(self.logit):
      return 'there are no targets'
    if lost := int(np.isnan(self.logit).sum()):
      return f'{lost:,} of {len(self.logit):,} logits are not numbers'
    return None

  def _of_one_class(self) -> str | None:
    for value in (0, 1):
      if np.all((self.label > 0.5) == value):
        return f'all {len(self.label):,} labels are {value}'
    return None


def merge(parts: Iterable[_Tree]) -> _Tree:
  """Joins trees of arrays, such as predictions; metrics ignore their order.

  Args:
    parts: trees of arrays that are alike but for their first axis.
  """
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def of_all_processes(parts: list[_Tree]) -> list[_Tree]:
  """Returns everyone's predictions, in the order of a single process.

  Args:
    parts: a tree for each batch, whose leaves are flat arrays [n] with this
      process's rows. All processes have the same number of batches, and of rows
      in each.
  """
  if jax.process_count() == 1:
    return parts
  # [processes, batches, rows]: what a batch holds belongs together.
  stacked = jax.tree.map(lambda *xs: np.stack(xs), *parts)
  everyone = jax.tree.map(
    lambda x: np.swapaxes(processes.gather(x), 0, 1), stacked
  )
  return [
    jax.tree.map(lambda x, at=at: x[at].ravel(), everyone)
    for at in range(len(parts))
  ]


_SAVED = {
  'logit': np.float32,
  'label': np.uint8,
  'weight': np.float32,
  'user': np.int32,
  'category': np.int32,
}


def save(predictions: Predictions, path: str | os.PathLike[str]) -> None:
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
  from dare_jax import storage  # It may be missing where nothing is saved.

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

  NaN if there is only one class, or if a score is NaN.

  Args:
    scores: float [n], one for each target.
    labels: [n], positive where above 0.5.
    weights: float [n]; None: all targets count alike.

  >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
  0.875
  """
  wins, positive, negative = _pairs(
    scores, labels, weights, np.zeros(len(scores), np.int64)
  )
  if not len(wins) or _has_nan(scores, weights):
    return float('nan')
  return _ratio(wins[0], positive[0] * negative[0])


def grouped_auc(
  scores: np.ndarray,
  labels: np.ndarray,
  weights: np.ndarray | None,
  groups: np.ndarray,
) -> float:
  """Returns the mean AUC of groups, weighted by their number of targets.

  Groups with one class only are left out; NaN if none remains, or if a score
  is NaN.

  Args:
    scores: float [n], one for each target.
    labels: [n], positive where above 0.5.
    weights: float [n]; None: all targets count alike.
    groups: int [n], the group of each target.
  """
  if _has_nan(scores, weights):
    return float('nan')
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


def _has_nan(scores: np.ndarray, weights: np.ndarray | None) -> bool:
  """Whether a score that counts is NaN: no order is then right."""
  lost = np.isnan(scores)
  return bool(np.any(lost if weights is None else lost & (weights > 0)))


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
  return _ratio(np.sum(values * weights), np.sum(weights))


def _ratio(numerator: float, denominator: float) -> float:
  return float(numerator / denominator) if denominator else float('nan')
