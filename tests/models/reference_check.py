"""Whether a model agrees with its slow twin."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import chex
import jax
import numpy as np

from dare_jax import models
from dare_jax import types
from tests.models import examples
from tests.models import reference


def assert_equal(
  model: models.Ranker, variables: Any, batch: types.Batch, atol: float = 1e-6
) -> tuple[types.RankerOutput, reference.Output]:
  """Compares logits, in evaluation and in training, with the reference's.

  Returns:
    What both give in training, for further checks.
  """
  close = {'rtol': 1e-6, 'atol': atol}  # Logarithms are float32.
  with jax.enable_x64(True):
    variables, batch = examples.to_float64((variables, batch))
    outputs = examples.outputs(model, variables, batch)
    for train, output in zip((False, True), outputs, strict=True):
      expected = reference.rank(model, variables, batch, train)
      np.testing.assert_allclose(output.logits, expected.logits, **close)
      if train and model.config.aux_head:
        np.testing.assert_allclose(
          output.aux_logits, expected.aux_logits, **close
        )
  return output, expected


def assert_same_kept(
  output: types.RankerOutput, expected: reference.Output
) -> None:
  """Compares which behaviors a search kept with the reference's."""
  found = output.search
  for where in np.ndindex(*found.mask.shape[:-1]):
    b, m, c = where
    kept = np.asarray(found.indices[where])[np.asarray(found.mask[where])]
    np.testing.assert_array_equal(
      np.sort(kept), np.sort(expected.kept[b][m][c])
    )


def assert_same_by_windows(
  model: models.Ranker, variables: Any, batch: types.Batch
) -> tuple[examples.Measured, examples.Measured]:
  """Compares a window at a time with all at once: loss, gradients, statistics.

  Returns:
    What both give, for further checks: the parts, the whole.
  """
  whole = examples.measure(model, variables, batch)
  few = dataclasses.replace(model.config, scores_at_once=1)
  parts = examples.measure(model.clone(config=few), variables, batch)
  for name in ('loss', 'grads', 'batch_stats'):
    chex.assert_trees_all_close(
      getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=5e-5
    )
  return parts, whole


def loss_of(slow: reference.Output, batch: types.Batch) -> float:
  """Returns the training loss of what the reference gives."""
  return float(_loss(slow.logits, slow.aux_logits, batch.targets))


@jax.jit
def _loss(logits: Any, aux_logits: Any, targets: types.Targets) -> jax.Array:
  output = mock.Mock(logits=logits, aux_logits=aux_logits)
  return examples.loss(output, targets)


def slope(
  model: models.Ranker,
  variables: Any,
  batch: types.Batch,
  path: tuple[str, str],
  place: tuple[int, ...],
) -> float:
  """Returns the reference's change of the training loss with a parameter.

  Args:
    model: the ranker.
    variables: its variables, float64.
    batch: what the loss is of, float64.
    path: the names of a module of the ranker and of a parameter.
    place: the number among the parameter's.
  """
  module, name = path

  def loss(change: float) -> float:
    own = dict(variables['params'][module])
    own[name] = np.array(own[name])
    own[name][place] += change
    moved = {**variables, 'params': {**variables['params'], module: own}}
    return loss_of(reference.rank(model, moved, batch, train=True), batch)

  return (loss(1e-6) - loss(-1e-6)) / 2e-6
