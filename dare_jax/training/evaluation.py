"""Metrics of a state over a split: every row once, running statistics."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from dare_jax.data import pipeline
from dare_jax.training import metrics
from dare_jax.training import state as train_state


def evaluate(
  trainer: train_state.Trainer,
  state: train_state.TrainState,
  batches: pipeline.Pipeline,
  batch_size: int,
  check_stop: Callable[[], None] = lambda: None,
) -> dict[str, float]:
  """Returns the metrics of a split.

  Besides the metrics of `Predictions.compute`, AUC by slice: moments whose
  positive is (not) in the visible history, by item and by category.

  Args:
    trainer: gives the predict step.
    state: parameters to evaluate.
    batches: the split.
    batch_size: moments a batch.
    check_stop: called before each batch; raises to abandon the evaluation.
  """
  iterator = batches.eval_batches(batch_size)
  parts = []
  with pipeline.Prefetcher(lambda _: next(iterator, None), 0, 2) as prefetcher:
    while (item := prefetcher.next()) is not None:
      check_stop()
      logits, seen = jax.device_get(trainer.predict_step(state, item.batch))
      parts.append(_predictions(item, logits, seen))
  return metrics.merge(parts).compute()


def _predictions(
  item: pipeline.EvalBatch, logits: np.ndarray, seen: dict[str, np.ndarray]
) -> metrics.Predictions:
  targets = item.batch.targets
  slices = {}
  for field, flags in seen.items():
    hit = (flags & (targets.label > 0.5)).any(axis=-1, keepdims=True)
    hit = np.broadcast_to(hit, logits.shape).ravel()
    slices[f'{field}_seen'] = hit
    slices[f'{field}_unseen'] = ~hit
  return metrics.Predictions(
    logit=logits.ravel(),
    label=np.asarray(targets.label).ravel(),
    weight=np.asarray(targets.weight).ravel(),
    user=item.user.ravel(),
    category=item.category.ravel(),
    slices=slices,
  )
