"""Optimizers of the tables and of everything else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import TypeAlias

import optax

from dare_jax import errors

Rate: TypeAlias = float | optax.Schedule

# The seam for row-sparse optimizers: config name -> transformation.
TABLE_OPTIMIZERS: Mapping[str, Callable[[Rate], Any]] = {'adam': optax.adam}
SCHEDULES = ('constant', 'linear')


def dense_optimizer(
  optim: Any, total_steps: int
) -> optax.GradientTransformation:
  """Returns Adam for heads and projections, as published."""
  return optax.adam(_rate(optim, optim.learning_rate, total_steps))


def table_optimizer(
  optim: Any, total_steps: int
) -> optax.GradientTransformation:
  """Returns the optimizer of the tables.

  Args:
    optim: the config's optim section.
    total_steps: length of the run, for the schedule.

  Raises:
    UsageError: unknown optimizer or schedule.
  """
  if optim.tables not in TABLE_OPTIMIZERS:
    raise errors.UsageError(
      f'optim.tables={optim.tables!r}: expected one of'
      f' {", ".join(TABLE_OPTIMIZERS)}.'
    )
  rate = optim.table_learning_rate
  rate = optim.learning_rate if rate is None else rate
  return TABLE_OPTIMIZERS[optim.tables](_rate(optim, rate, total_steps))


def _rate(optim: Any, rate: float, total_steps: int) -> Rate:
  """The learning rate by step. A run made longer decays over its new length."""
  if optim.schedule not in SCHEDULES:
    raise errors.UsageError(
      f'optim.schedule={optim.schedule!r}: expected one of'
      f' {", ".join(SCHEDULES)}.'
    )
  if optim.schedule == 'constant':
    return rate
  return optax.linear_schedule(rate, 0.0, max(total_steps, 1))
