"""What decides which checkpoint is best, settled before the first step.

AUC, where validation has targets of both labels; else logloss, which has a
value for one label, too. An evaluation in which it has none (logits that are
not numbers) is never the best, nor does it keep a later one from being so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dare_jax import errors
from dare_jax.data import label_counts
from dare_jax.store import history_store

Labels = Mapping[str, label_counts.LabelCounts]


def check(
  store: history_store.HistoryStore, split: str, labels: Labels
) -> None:
  """Refuses to train on targets that are all alike.

  Args:
    store: the history store.
    split: the protocol, `data.split`.
    labels: 'train', 'val' and 'test' -> the labels of their targets, counted.

  Raises:
    UsageError: every label of the log, or of the training split, is the same.
  """
  if (reason := labels['train'].one_class) is None:
    return
  # A log of label 0 alone has no behaviors, hence no moments.
  if store.impressions is not None and np.all(
    store.impressions.columns['label'] == 1
  ):
    raise errors.UsageError(
      'every label of the log is 1: there is nothing to tell a click from;'
      ' --config.data.columns.label=None takes its rows as positives, and'
      ' samples the negatives.'
    )
  raise errors.UsageError(
    f'nothing can be learned from the training split: {reason}; choose another'
    f' split than data.split={split}, or other borders for it, or take all rows'
    ' as positives and sample the negatives, with'
    ' --config.data.columns.label=None.'
  )


def choose(labels: label_counts.LabelCounts) -> str:
  """Returns the metric that decides, from the labels of validation."""
  return 'auc' if labels.one_class is None else 'logloss'


def notes(labels: Labels, best_by: str) -> list[str]:
  """Returns what is to be known before a training, if anything.

  Args:
    labels: 'train', 'val' and 'test' -> the labels of their targets, counted.
    best_by: the metric that decides.
  """
  found = []
  if reason := labels['val'].one_class:
    found.append(
      f'no AUC in validation, where {reason}: '
      + (
        'the best checkpoint is that of the lowest val/logloss, which says'
        ' nothing of their order; evaluate --checkpoint=last has the last'
        if best_by == 'logloss'
        else 'no further one is best in this run, which AUC decides'
      )
    )
  if reason := labels['test'].one_class:
    found.append(f'no AUC in the test, where {reason}')
  return found


def is_better(
  best_by: str, values: Mapping[str, float], best: Mapping[str, float]
) -> bool:
  """Returns whether an evaluation is better than the best one so far.

  >>> is_better('auc', {'auc': 0.7}, {'auc': 0.6})
  True
  >>> is_better('logloss', {'logloss': 0.7}, {'logloss': 0.6})
  False
  >>> is_better('auc', {'auc': 0.5}, {}), is_better('auc', {}, {})
  (True, False)

  Args:
    best_by: the metric that decides.
    values: metric -> value of this evaluation, without undefined metrics.
    best: metric -> value of the best evaluation so far; empty without one.
  """
  if best_by not in values:
    return False
  if best_by not in best:
    return True
  gain = values[best_by] - best[best_by]
  return gain < 0 if best_by == 'logloss' else gain > 0
