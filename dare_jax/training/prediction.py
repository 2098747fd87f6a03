"""Predictions and metrics over a split: every row once, running statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dare_jax import types
from dare_jax.data import pipeline
from dare_jax.evaluation import metrics
from dare_jax.evaluation import retrieval
from dare_jax.logs.builders import synthetic
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import feed


def predict(
  predict_step: Callable[..., Any],
  state: Any,
  batches: pipeline.Pipeline,
  placer: feed.Placer,
  batch_size: int,
  check_stop: Callable[[], None] = lambda: None,
  truth: synthetic.Truth | None = None,
  drop_last: bool = False,
) -> metrics.Predictions:
  """Returns the predictions for a split; `compute` gives the metrics.

  The slices are moments whose positive is (not) in the visible history, by
  item and by category.

  Args:
    predict_step: the function `Trainer.predict_step`.
    state: the state that it takes, with the parameters to evaluate.
    batches: the pipeline of the split.
    placer: puts its batches on the mesh.
    batch_size: number of moments of a batch.
    check_stop: called before each batch; raises to abandon the evaluation.
    truth: the planted relevance, where it is known: to score the search by.
    drop_last: whether the last rows, fewer than a batch, are left out.
  """
  keep = retrieval.KEEP if truth is not None else 0
  iterator = batches.eval_batches(batch_size, drop_last)

  def make(_: int) -> tuple[types.Batch, pipeline.EvalBatch] | None:
    item = next(iterator, None)
    return None if item is None else (item.batch, item)

  parts = []
  with feed.Feed(placer, make, 0, 2) as stream:
    while (fed := stream.next()) is not None:
      check_stop()
      item = fed.extra
      logits, found = jax.tree.map(
        mesh_lib.local_rows, predict_step(state, fed.batch, keep)
      )
      means = {}
      if truth is not None:
        ndcg = retrieval.search_ndcg(truth, item.stored, found)
        means[retrieval.METRIC] = ndcg.ravel()
      parts.append(_predictions(item, logits, means))
  whole = metrics.merge(metrics.of_all_processes(parts))
  if (places := batches.eval_places(batch_size)) is None:
    return whole
  each = batches.targets_per_row
  order = (places[:, None] * each + np.arange(each)).ravel()
  return jax.tree.map(lambda array: array[order], whole)


def _predictions(
  item: pipeline.EvalBatch,
  logits: np.ndarray,
  means: dict[str, np.ndarray],
) -> metrics.Predictions:
  targets = item.batch.targets
  slices = {}
  for field, flags in item.seen.items():
    hit = np.broadcast_to(flags[..., None], logits.shape).ravel()
    slices[f'{field}_seen'] = hit
    slices[f'{field}_unseen'] = ~hit
  return metrics.Predictions(
    logit=logits.ravel(),
    label=np.asarray(targets.label).ravel(),
    weight=np.asarray(targets.weight).ravel(),
    user=item.user.ravel(),
    category=item.stored.targets.ids['category'].ravel(),
    slices=slices,
    means=means,
  )
