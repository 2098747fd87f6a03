"""What a log line needs: running sums over targets, and their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import types
from dare_jax.evaluation import metrics

# Sums over the targets since the last log line; all that a log line needs.
SUM_NAMES = (
  'steps',
  'loss',
  'logloss',
  'aux_logloss',
  'right',
  'prob',
  'label',
  'weight',
)
# Mean -> its sum, the sum that it is divided by, what it means that this is 0.
_MEANS = {
  'loss': ('loss', 'steps', 'there are no steps'),
  'logloss': ('logloss', 'weight', 'there are no targets'),
  'aux_logloss': ('aux_logloss', 'weight', 'there are no targets'),
  'accuracy': ('right', 'weight', 'there are no targets'),
  'calibration': ('prob', 'label', 'no target has label 1'),
}


def zero_sums() -> dict[str, jax.Array]:
  """Returns the sums of an empty log window."""
  return {name: jnp.zeros(()) for name in SUM_NAMES}


def of_targets(
  logits: jax.Array, targets: types.Targets, axis_name: str
) -> dict[str, Any]:
  """Returns those sums of a batch that are over targets.

  Args:
    logits: float [b, m, c], of a device's part of the batch.
    targets: the targets of that part.
    axis_name: of the devices that share the batch.
  """
  label, weight = targets.label, targets.weight
  sums = {
    'right': jnp.sum(weight * ((logits > 0) == (label > 0.5))),
    'prob': jnp.sum(weight * jax.nn.sigmoid(logits)),
    'label': jnp.sum(weight * label),
    'weight': jnp.sum(weight),
  }
  return jax.lax.psum(sums, axis_name)


def summarize(sums: Mapping[str, Any]) -> metrics.Report:
  """Returns the means of a log window from its sums."""
  host = {name: float(np.asarray(value)) for name, value in sums.items()}
  values, left_out = {}, {}
  for name, (total, count, nothing) in _MEANS.items():
    if not host[count] > 0:
      left_out[name] = nothing
    elif np.isfinite(mean := host[total] / host[count]):
      values[name] = mean
    else:
      left_out[name] = 'it is not finite'
  return metrics.Report(values, left_out)
