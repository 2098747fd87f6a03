"""A gradient-boosted tree on hand-made counts: is a deep model worth it?

It sees the moments, histories and negatives that a run of the same config
trains and tests on. Needs scikit-learn (extra `analysis`).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import time
from typing import Any

import ml_collections
import numpy as np

from dare_jax import config_flag
from dare_jax import errors
from dare_jax import types
from dare_jax.data import label_counts
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.evaluation import judge
from dare_jax.evaluation import metrics
from dare_jax.experiments import options as run_options
from dare_jax.store import datasets
from dare_jax.store import history_store


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = config_flag.define()
  return lambda: [measure(config.value)]


def measure(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the tree's test metrics on the moments of a config.

  Raises:
    UsageError: scikit-learn is missing.
  """
  try:
    from sklearn import ensemble
  except ImportError:
    raise errors.UsageError(
      f'bench tree needs scikit-learn: {errors.install("analysis")}.'
    ) from None

  options = run_options.of_config(config)
  store = datasets.open_or_prepare(options.log)
  moments = splits.make_splits(store, options.data)
  labels = {
    name: label_counts.count(store, part, options.data)
    for name, part in moments.items()
  }
  judge.check(store, options.data.split, labels)
  pipelines = {
    name: pipeline.Pipeline(store, part, name, options.data, options.seed)
    for name, part in moments.items()
  }
  size = options.train.batch_size
  steps = options.train.steps or int(
    options.train.epochs * pipelines['train'].num_examples / size
  )
  begin = time.perf_counter()
  counts = _Counts(store)
  x, y, _ = counts.rows(
    pipelines['train'].train_batch(step, size) for step in range(steps)
  )
  tree = ensemble.HistGradientBoostingClassifier(random_state=options.seed)
  tree.fit(x, y)
  tests = list(pipelines['test'].eval_batches(size))
  x, y, weight = counts.rows(item.batch for item in tests)
  logit = tree.decision_function(x)
  user = np.concatenate([item.user.ravel() for item in tests])
  return {
    'model': 'gradient-boosted tree',
    'train_targets': steps * size * pipelines['train'].targets_per_example,
    'history_length': options.data.history_length,
    'test_auc': metrics.auc(logit, y, weight),
    'test_gauc': metrics.grouped_auc(
      logit[weight > 0], y[weight > 0], None, user[weight > 0]
    ),
    'seconds': time.perf_counter() - begin,
  }


class _Counts:
  """Three features of each field of a target: count, recency, popularity."""

  def __init__(self, store: history_store.HistoryStore) -> None:
    self._popularity = {
      field: np.bincount(
        store.behaviors.columns[f'{field}_id'],
        minlength=store.vocab_sizes[field],
      )
      for field in store.fields
      if f'{field}_id' in store.behaviors.columns
    }

  def rows(
    self, batches: Iterable[types.Batch]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns features float32 [n, 3 fields], labels [n] and weights [n]."""
    x, y, weight = [], [], []
    for batch in batches:
      columns: list[np.ndarray] = []
      visible = np.asarray(batch.visible())
      end = np.asarray(batch.end)[..., None]
      for field, popularity in self._popularity.items():
        target = np.asarray(batch.targets.ids[field])
        history = np.asarray(batch.history.ids[field])
        same = history[:, None, None] == target[..., None]
        same &= visible[:, :, None]
        last = same.shape[-1] - same[..., ::-1].argmax(-1)
        recency = np.where(same.any(-1), end - last, same.shape[-1])
        columns += [same.sum(-1), recency, popularity[target]]
      features = np.stack(columns, -1).reshape(-1, len(columns))
      x.append(features.astype(np.float32))
      y.append(np.asarray(batch.targets.label).ravel())
      weight.append(np.asarray(batch.targets.weight).ravel())
    return np.concatenate(x), np.concatenate(y), np.concatenate(weight)
