"""Optimizers of the tables and of everything else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import re
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from dare_jax import errors

Rate: TypeAlias = float | optax.Schedule


@dataclasses.dataclass(frozen=True)
class TableOptimizer:
  """How a table is trained.

  Attributes:
    scale: makes the transformation of gradients, before decay and rate.
    row_sparse: whether only rows in the batch move, and their slots with them.
      Any optax transformation will do whose slots are one for a row, or one
      for all.
  """

  scale: Callable[[], optax.GradientTransformation]
  row_sparse: bool


class RowAdagradState(NamedTuple):
  """The sum over steps of a row's mean squared gradient, float32 [rows]."""

  total: jax.Array


def scale_by_row_adagrad(eps: float = 1e-10) -> optax.GradientTransformation:
  """Divides a row's gradient by the root of its history's mean squares.

  Adagrad (Duchi et al., JMLR 2011) with one accumulator a row, as is common
  for embedding tables: one float a row where Adam keeps two for each of its
  elements. An accumulator starts at 0: a row's first step is of the size of
  the learning rate, however small its gradient.

  Args:
    eps: added to the root.
  """

  def init(tables: optax.Params) -> RowAdagradState:
    return RowAdagradState(
      jax.tree.map(lambda x: jnp.zeros(x.shape[:1], jnp.float32), tables)
    )

  def update(
    grads: optax.Updates, state: RowAdagradState, params: Any = None
  ) -> tuple[optax.Updates, RowAdagradState]:
    del params
    total = jax.tree.map(
      lambda t, g: t + jnp.mean(jnp.square(g), axis=1), state.total, grads
    )
    scaled = jax.tree.map(
      lambda t, g: g / (jnp.sqrt(t)[:, None] + eps), total, grads
    )
    return scaled, RowAdagradState(total)

  return optax.GradientTransformation(init, update)


TABLE_OPTIMIZERS: Mapping[str, TableOptimizer] = {
  # Adam with a step for every row at every step, by momentum if by nothing
  # else: the published recipe.
  'adam': TableOptimizer(optax.scale_by_adam, row_sparse=False),
  # Adam's moments of the rows in the batch; bias correction by the step.
  'lazy_adam': TableOptimizer(optax.scale_by_adam, row_sparse=True),
  'row_adagrad': TableOptimizer(scale_by_row_adagrad, row_sparse=True),
  'sgd': TableOptimizer(optax.identity, row_sparse=True),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
  'tables': tuple(TABLE_OPTIMIZERS),
  'schedule': ('constant', 'linear'),
  'table_dtype': ('float32', 'bfloat16'),
  'unique_rows': ('host', 'device'),
}


def check(optim: Any) -> None:
  """Raises UsageError for a choice of the optim section that there is not."""
  for field, choices in _CHOICES.items():
    if optim[field] not in choices:
      raise errors.UsageError(
        f'optim.{field}={optim[field]!r}: expected one of {", ".join(choices)}.'
      )
  if optim.table_dtype != 'float32' and not is_row_sparse(optim):
    raise errors.UsageError(
      f'optim.table_dtype={optim.table_dtype} is for row-sparse optimizers,'
      f' not for optim.tables={optim.tables}.'
    )


def dense_optimizer(
  optim: Any, total_steps: int
) -> optax.GradientTransformation:
  """Returns Adam for heads and projections, as published."""
  return optax.adam(_rate(optim, optim.learning_rate, total_steps))


def is_row_sparse(optim: Any) -> bool:
  """Whether the config's optimizer of tables moves rows of the batch only."""
  return TABLE_OPTIMIZERS[optim.tables].row_sparse


def table_optimizers(
  optim: Any, names: Iterable[str], total_steps: int
) -> dict[str, optax.GradientTransformation]:
  """Returns the optimizer of each table, by name.

  Args:
    optim: the config's optim section.
    names: of the tables, such as `item_attention`.
    total_steps: length of the run, for the schedule.

  Raises:
    UsageError: a malformed `optim.by_table`, or a pattern there that no table
      has.
  """
  names = list(names)
  rules = list(_rules(optim, names))
  scale = TABLE_OPTIMIZERS[optim.tables].scale
  rate = optim.table_learning_rate
  rate = optim.learning_rate if rate is None else rate
  made = {}
  for name in names:
    own = (r[1:] for r in rules if re.fullmatch(r[0], name))
    own_rate, decay = next(own, (rate, optim.table_weight_decay))
    parts = [scale()]
    if decay:
      parts.append(optax.add_decayed_weights(decay))
    schedule = _rate(optim, own_rate, total_steps)
    made[name] = optax.chain(*parts, optax.scale_by_learning_rate(schedule))
  return made


def _rules(optim: Any, names: list[str]) -> Iterable[tuple[str, float, float]]:
  for rule in optim.by_table:
    try:
      pattern, rate, decay = rule
      matches = [name for name in names if re.fullmatch(pattern, name)]
      found = pattern, float(rate), float(decay)
      if not min(found[1:]) >= 0:
        raise ValueError
    except (TypeError, ValueError, re.error):
      raise errors.UsageError(
        f'optim.by_table has {rule!r}: expected (pattern of table names,'
        " learning rate, weight decay), as in (('item_.*', 0.01, 0.0),); no"
        ' number below 0.'
      ) from None
    if not matches:
      raise errors.UsageError(
        f'optim.by_table: no table is named {pattern!r}; there are'
        f' {", ".join(names)}.'
      )
    yield found


def _rate(optim: Any, rate: float, total_steps: int) -> Rate:
  """The learning rate by step. A run made longer decays over its new length."""
  if optim.schedule == 'constant':
    return rate
  return optax.linear_schedule(rate, 0.0, max(total_steps, 1))
