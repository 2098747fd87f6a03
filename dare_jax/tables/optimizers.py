"""Optimizers of tables."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
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
    transform: the transformation of gradients to updates, learning rate
      included. Where `row_sparse`, any optax transformation will do whose slots
      are one for each row, or one for all.
    row_sparse: whether only rows in the batch move, and their slots with them.
  """

  transform: optax.GradientTransformation
  row_sparse: bool = True


def by_name(
  optimizer: TableOptimizer | Mapping[str, TableOptimizer],
  names: Collection[str],
) -> dict[str, TableOptimizer]:
  """Returns the optimizer of each table.

  Args:
    optimizer: one for all tables, or name -> optimizer of the table.
    names: the names of the tables.

  Raises:
    UsageError: a table without an optimizer, or one without a table.
  """
  if isinstance(optimizer, TableOptimizer):
    optimizer = dict.fromkeys(names, optimizer)
  if set(optimizer) != set(names):
    raise errors.UsageError(
      f'optimizers are of the tables {", ".join(sorted(optimizer))}; expected'
      f' one of each of {", ".join(sorted(names))}.'
    )
  return {name: optimizer[name] for name in names}


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
    """Returns the scaled gradients and the next sums of squares."""
    del params
    total = jax.tree.map(
      lambda t, g: t + jnp.mean(jnp.square(g), axis=1), state.total, grads
    )
    scaled = jax.tree.map(
      lambda t, g: g / (jnp.sqrt(t)[:, None] + eps), total, grads
    )
    return scaled, RowAdagradState(total)

  return optax.GradientTransformation(init, update)


def lazy_adam(learning_rate: Rate, weight_decay: float = 0.0) -> TableOptimizer:
  """Returns Adam of the rows in the batch; bias correction by the step.

  The moments of a row that is not in the batch stay as they are. Where every
  row is in every batch, it is Adam.

  Args:
    learning_rate: a number, or an optax schedule of the step.
    weight_decay: decoupled decay of the rows that move, times the rate.
  """
  return _chain(optax.scale_by_adam(), learning_rate, weight_decay)


def row_adagrad(
  learning_rate: Rate, weight_decay: float = 0.0
) -> TableOptimizer:
  """Returns Adagrad of the rows in the batch, one accumulator a row.

  Args:
    learning_rate: a number, or an optax schedule of the step.
    weight_decay: decoupled decay of the rows that move, times the rate.
  """
  return _chain(scale_by_row_adagrad(), learning_rate, weight_decay)


def sgd(learning_rate: Rate, weight_decay: float = 0.0) -> TableOptimizer:
  """Returns gradient descent, which keeps no slots.

  Args:
    learning_rate: a number, or an optax schedule of the step.
    weight_decay: decoupled decay of the rows that move, times the rate.
  """
  return _chain(optax.identity(), learning_rate, weight_decay)


def adam(learning_rate: Rate, weight_decay: float = 0.0) -> TableOptimizer:
  """Returns Adam with a step for every row at every step.

  A row that is not in the batch moves by its momentum: the published recipe,
  whose cost follows the table and not the batch.

  Args:
    learning_rate: a number, or an optax schedule of the step.
    weight_decay: decoupled decay of all rows, times the rate.
  """
  made = _chain(optax.scale_by_adam(), learning_rate, weight_decay)
  return dataclasses.replace(made, row_sparse=False)


OPTIMIZERS: Mapping[str, Callable[[Rate, float], TableOptimizer]] = {
  'adam': adam,
  'lazy_adam': lazy_adam,
  'row_adagrad': row_adagrad,
  'sgd': sgd,
}


def _chain(
  scale: optax.GradientTransformation, rate: Rate, decay: float
) -> TableOptimizer:
  parts = [optax.add_decayed_weights(decay)] if decay else []
  return TableOptimizer(
    optax.chain(scale, *parts, optax.scale_by_learning_rate(rate))
  )
