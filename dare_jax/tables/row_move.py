"""One optimizer step of some rows of a table, written back in place."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Shaped
import optax

from dare_jax.tables import exchange


class RowMove:
  """Moves given rows of a block of a table, and their slots, by one step."""

  def __init__(
    self,
    optimizer: optax.GradientTransformation,
    rows: Int[Array, ' u'],
    padding: jax.Array,
    seed: jax.Array,
  ) -> None:
    """Makes a move.

    Args:
      optimizer: the optimizer of the table.
      rows: int [u], the rows that move, ascending and distinct; those beyond
        the block do not.
      padding: int, the row of the block that never moves; negative where
        another device has it.
      seed: a random key, for the stochastic rounding of a bfloat16 table.
    """
    self._optimizer = optimizer
    self._rows = rows
    self._padding = padding
    self._seed = seed

  def __call__(
    self,
    table: Float[Array, 'r d'],
    slots: Any,
    before: Any,
    grads: Float[Array, 'u d'],
  ) -> tuple[Float[Array, 'r d'], Any]:
    """Returns the table and its slots.

    Args:
      table: the block of the table, [r, d].
      slots: optimizer slots of the block, as the rounds before left them.
      before: optimizer slots of the block at the start of the step: step counts
        are taken from there, however many rounds there are.
      grads: gradients [u, width] of the rows.
    """
    is_row = row_leaves(self._optimizer, table.shape[1])
    take = lambda slot: exchange.take(slot, self._rows)
    own = _map_rows(is_row, lambda old, slot: take(slot), before, slots)
    moved, own = moved_rows(
      self._optimizer, take(table), own, grads, self._seed
    )
    put = lambda new, old: self._put(old, new)
    return put(moved, table), _map_rows(is_row, put, own, slots)

  def _put(
    self, table: Shaped[Array, 'r ...'], values: Shaped[Array, 'u ...']
  ) -> Shaped[Array, 'r ...']:
    """Writes rows back in place, but for the padding row."""
    beyond = jnp.iinfo(self._rows.dtype).max
    rows = jnp.where(self._rows == self._padding, beyond, self._rows)
    return table.at[rows].set(values, mode='drop', unique_indices=True)


def moved_rows(
  optimizer: optax.GradientTransformation,
  values: Float[Array, 'u d'],
  slots: Any,
  grads: Float[Array, 'u d'],
  seed: jax.Array,
) -> tuple[Float[Array, 'u d'], Any]:
  """Returns rows and their slots one step on.

  Args:
    optimizer: the optimizer of the table.
    values: float [u, d], rows of the table.
    slots: the optimizer slots of these rows.
    grads: float [u, d], the gradients of these rows.
    seed: a random key, for the stochastic rounding of bfloat16.
  """
  wide = as_float32(values)
  update, slots = optimizer.update(grads, slots, wide)
  return rounded(seed, wide + update, values.dtype), slots


def row_leaves(optimizer: optax.GradientTransformation, width: int) -> Any:
  """Returns which slots have a row for each of the table's, as a tree.

  Found by what happens to their shapes when a table gets more rows.

  Raises:
    ValueError: a slot follows the table's rows otherwise than row by row.
  """
  shapes = [
    jax.eval_shape(
      optimizer.init, jax.ShapeDtypeStruct((rows, width), jnp.float32)
    )
    for rows in (3, 5)
  ]

  def is_row(few: Any, many: Any) -> bool:
    """Returns whether a slot has a row for each row of the table."""
    if few.shape == many.shape:
      return False
    if (few.shape, many.shape) == ((3, *few.shape[1:]), (5, *few.shape[1:])):
      return True
    raise ValueError(
      'a table optimizer has a slot that depends on the number of rows, but'
      ' has no row for each of them; it cannot train tables by rows.'
    )

  return jax.tree.map(is_row, *shapes)


def _map_rows(is_row: Any, function: Any, new: Any, *old: Any) -> Any:
  """Applies a function to the slots that have rows; keeps the others of new."""
  return jax.tree.map(
    lambda flag, leaf, *rest: function(leaf, *rest) if flag else leaf,
    is_row,
    new,
    *old,
  )


def rounded(
  key: jax.Array, values: Float[Array, '*shape'], dtype: Any
) -> Float[Array, '*shape']:
  """Returns float32 values in `dtype`; bfloat16 is rounded stochastically.

  The expected value of the result is the value itself, so that steps smaller
  than the distance of two bfloat16 are not lost. Random bits are added to the
  16 bits that are then cut off: their carry rounds up with the right
  probability.
  """
  if dtype == values.dtype:
    return values
  bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
  noise = jax.random.bits(key, values.shape, jnp.uint32) >> 16
  kept = (bits + noise) & jnp.uint32(0xFFFF0000)
  nearest = jax.lax.bitcast_convert_type(kept, jnp.float32)
  return jnp.where(jnp.isfinite(values), nearest, values).astype(dtype)


def as_float32(values: jax.Array) -> jax.Array:
  """Returns values in float32, or in their own dtype if it is wider."""
  return values.astype(jnp.promote_types(values.dtype, jnp.float32))
