"""What a trained model loses where its cached keys are narrow.

    python -m dare_jax.bench recall --workdir=DIR

searches the test split from keys of each precision, and predicts from what was
found, beside the model's own search.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from typing import Any

from absl import flags
import jax
import numpy as np

from dare_jax import errors
from dare_jax import models
from dare_jax import trained
from dare_jax import types
from dare_jax.bench.searching import overlap
from dare_jax.evaluation import metrics
from dare_jax.serving import user_state

# Rows of the test split at once.
_BATCH_SIZE = 256
_OWN = 'own search'
Found = dict[str, tuple[jax.Array, jax.Array, jax.Array]]


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  workdir = flags.DEFINE_string('workdir', None, 'Folder of a trained run.')

  def measure() -> list[dict[str, Any]]:
    if workdir.value is None:
      raise errors.UsageError('--workdir is missing: the folder of a run.')
    return table(workdir.value)

  return measure


def table(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns a row for each precision, after that of the model's own search.

  Args:
    workdir: the workdir of a run whose search keeps the best by inner product.

  Returns:
    Rows with 'keys', 'recall' (the mean share of the behaviors kept by the
    model's own search that are found), 'auc' of the test split, and
    'auc_change' against the own search.

  Raises:
    UsageError: no checkpoint there, another kind of search, or a plan that
      mixes time and content.
  """
  run = trained.load(workdir)
  config = run.model.config
  if (config.search, config.scorer) != ('score', 'dot'):
    raise errors.UsageError(
      f'--workdir={workdir}: model.search={config.search} with'
      f' model.scorer={config.scorer}; cached keys are for score with dot.'
    )
  predict = jax.jit(lambda *args: _predict(run.model, *args))
  shares: dict[str, list[Any]] = {}
  logits: dict[str, list[Any]] = {}
  targets = []
  for item in run.experiment.pipelines['test'].eval_batches(_BATCH_SIZE):
    found = jax.device_get(predict(run.variables, item.batch))
    targets.append(item.batch.targets)
    for name, (_, _, logit) in found.items():
      logits.setdefault(name, []).append(logit.ravel())
      share = _shares(found, name)[item.batch.targets.weight > 0]
      shares.setdefault(name, []).append(share)
  label, weight = (
    np.concatenate([getattr(t, name).ravel() for t in targets])
    for name in ('label', 'weight')
  )
  auc = {
    name: metrics.auc(np.concatenate(parts), label, weight)
    for name, parts in logits.items()
  }
  return [
    {
      'keys': name,
      'recall': float(np.nanmean(np.concatenate(shares[name]))),
      'auc': auc[name],
      'auc_change': auc[name] - auc[_OWN],
    }
    for name in (_OWN, *user_state.PRECISIONS)
  ]


def _predict(
  model: models.Ranker, variables: dict[str, Any], batch: types.Batch
) -> Found:
  """Returns indices and mask of what is found, and logits, by precision."""

  def call(method: str, *args: Any) -> Any:
    return model.apply(variables, *args, method=method)

  history, ids = batch.history, batch.targets.ids
  keys = call('encode_history', history)
  capacity = user_state.capacity_of(keys.shape[1])
  query, bias = call('encode_targets', ids, capacity)
  if bias.ndim != 1:
    raise errors.UsageError(
      f'model.plan={model.config.plan} mixes time and content, so that keys'
      ' cannot be cached; expected another plan.'
    )
  results = {_OWN: call('search', keys, batch)}
  for precision in user_state.PRECISIONS:
    users = user_state.build(keys, history.mask, precision)
    result = user_state.search(users, query[:, 0], bias, model.config.top_k)
    results[precision] = user_state.in_windows(result, keys.shape[1])
  return {
    name: (result.indices, result.mask, call('score', batch, result))
    for name, result in results.items()
  }


def _shares(found: Found, name: str) -> np.ndarray:
  """Returns the recall of each target; NaN where there is nothing to find."""
  kept = lambda index, mask, _: np.where(mask, index, -1)
  return overlap.shares(kept(*found[name]), kept(*found[_OWN]))
