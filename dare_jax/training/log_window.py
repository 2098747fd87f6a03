"""What a log line needs: running sums over targets, and their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


def zero_sums() -> dict[str, jax.Array]:
  """Returns the sums of an empty log window."""
  return {name: jnp.zeros(()) for name in SUM_NAMES}


def summarize(sums: Mapping[str, Any]) -> dict[str, float]:
  """Returns the means of a log window from its sums."""
  host = {name: float(np.asarray(value)) for name, value in sums.items()}
  weight = max(host['weight'], 1.0)
  return {
    'loss': host['loss'] / max(host['steps'], 1.0),
    'logloss': host['logloss'] / weight,
    'aux_logloss': host['aux_logloss'] / weight,
    'accuracy': host['right'] / weight,
    'calibration': host['prob'] / max(host['label'], 1e-9),
  }
