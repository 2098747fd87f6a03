"""Optimizers of the tables and of everything else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import optax

from dare_jax import errors

# The seam for row-sparse optimizers: config name -> transformation.
TABLE_OPTIMIZERS: Mapping[
  str, Callable[[float], optax.GradientTransformation]
] = {
  'adam': optax.adam,
}


def dense_optimizer(optim: Any) -> optax.GradientTransformation:
  """Returns Adam for heads and projections, as published."""
  return optax.adam(optim.learning_rate)


def table_optimizer(optim: Any) -> optax.GradientTransformation:
  """Returns the optimizer of the tables.

  Raises:
    UsageError: unknown name.
  """
  if optim.tables not in TABLE_OPTIMIZERS:
    raise errors.UsageError(
      f'optim.tables={optim.tables!r}: expected one of'
      f' {", ".join(TABLE_OPTIMIZERS)}.'
    )
  rate = optim.table_learning_rate
  return TABLE_OPTIMIZERS[optim.tables](
    optim.learning_rate if rate is None else rate
  )
