"""Gathers and scatters within rows: numbers at places that differ by row.

CPUs and GPUs read a number at any place. TPUs have none but vectors: a gather
of numbers takes them one by one, a slice whose place differs by row makes a
loop of the rows. There, whole vectors are moved, and numbers chosen by
comparing places.

All functions are linear in their first argument, and exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import shapes

_Linear = Callable[[Any, Any], Any]


def moved_right(
  x: Float[Array, 'b m *inner n'], steps: Int[Array, 'b m']
) -> Float[Array, 'b m *inner n']:
  """Returns rows moved by some steps: y[i] = x[i - steps], or 0.

  >>> import jax.numpy as jnp
  >>> moved_right(jnp.array([[[1.0, 2.0, 3.0]]]), jnp.array([[1]])).tolist()
  [[[0.0, 1.0, 2.0]]]

  Args:
    x: rows; those of one place in [b, m] move alike.
    steps: 0 to n.
  """
  if not shapes.are_known(*x.shape):
    return _slices(x, steps)
  move = lambda x, steps: _by_stages(x, steps, to_right=True)
  return _by_platform(_slices, move, x, steps)


def counted_back(
  table: Float[Array, ' p'] | Float[Array, 'b m c p'],
  end: Int[Array, 'b m'],
  distance: Int[Array, 'b m l'],
) -> Float[Array, 'b m #c l']:
  """Returns the entries of a table at distances that are counted back.

  >>> import jax.numpy as jnp
  >>> table, end = jnp.array([9.0, 1.0, 2.0, 3.0]), jnp.array([[2]])
  >>> counted_back(table, end, jnp.array([[[2, 1, 0]]])).tolist()
  [[[[2.0, 1.0, 9.0]]]]

  Args:
    table: float [p] or [b, m, c, p], values of the distances 0 to l: p = l + 1.
    end: where counting begins.
    distance: max(end - i, 0) of place i.
  """
  if not shapes.are_known(*table.shape, *distance.shape):
    return at_distance(table, distance)

  def moved(table: Any, places: Any) -> Any:
    """Returns the same by moving whole vectors, as TPUs do it fast."""
    _, end = places
    length = distance.shape[-1]
    # Inside `jax.shard_map`, the gradient of a table that devices share is
    # summed over them where it first meets what they do not: here it is small.
    table = table + (end[0, 0] * 0).astype(table.dtype)
    rows = table[..., length:0:-1]
    if table.ndim == 1:
      rows = jnp.broadcast_to(rows, (*end.shape, 1, length))
    rows = _by_stages(rows, length - end, to_right=False)
    is_before = jax.lax.broadcasted_iota(jnp.int32, rows.shape, 3)
    is_before = is_before < end[:, :, None, None]
    first = table[..., :1]
    return jnp.where(is_before, rows, jnp.broadcast_to(first, rows.shape))

  read = lambda table, places: at_distance(table, places[0])
  return _by_platform(read, moved, table, (distance, end))


def at_distance(
  table: Float[Array, ' p'] | Float[Array, 'b m c p'],
  distance: Int[Array, 'b m l'],
) -> Float[Array, 'b m #c l']:
  """Returns the entries of a table at any distances, one by one."""
  if table.ndim == 1:
    return jnp.take(table, distance, mode='clip')[:, :, None, :]
  return jnp.take_along_axis(table, distance[:, :, None, :], axis=-1)


def taken(
  x: Float[Array, '*rows n'], index: Int[Array, '*rows k']
) -> Float[Array, '*rows k']:
  """Returns some numbers of each row: y[j] = x[index[j]].

  >>> import jax.numpy as jnp
  >>> taken(jnp.array([[5.0, 6.0, 7.0]]), jnp.array([[2, 0]])).tolist()
  [[7.0, 5.0]]
  """
  if not shapes.are_known(*x.shape):
    return _one_by_one(x, index)
  return _by_platform(_one_by_one, _compared, x, index)


def put(
  x: Float[Array, '*rows k'], index: Int[Array, '*rows k'], n: int
) -> Float[Array, '*rows n']:
  """Returns rows of zeros but for some numbers: y[index[j]] = x[j].

  Numbers with the same index are summed.

  Args:
    x: the numbers to put.
    index: the place of each in its row, below n.
    n: length of the rows.

  >>> import jax.numpy as jnp
  >>> put(jnp.array([[7.0, 5.0]]), jnp.array([[2, 0]]), 3).tolist()
  [[5.0, 0.0, 7.0]]
  """
  if not shapes.are_known(*x.shape, n):
    return _put_one_by_one(x, index, n)
  return _by_platform(
    lambda x, index: _put_one_by_one(x, index, n),
    lambda x, index: _put_by_comparing(x, index, n),
    x,
    index,
  )


def _by_platform(plain: _Linear, tpu: _Linear, x: Any, places: Any) -> Any:
  """Returns what one of two equal linear functions makes of x.

  A gradient is made by the transpose of the same one: were the choice itself
  differentiated, what either keeps for its gradient would be kept.
  """
  kind = jax.typeof(x)  # With the axes of `jax.shard_map` that it varies on.

  def transposed(function: _Linear) -> _Linear:
    def back(cotangent: Any, places: Any) -> Any:
      own = lambda x: function(x, places)
      return jax.linear_transpose(own, kind)(cotangent)[0]

    return back

  @jax.custom_vjp
  def apply(x: Any, places: Any) -> Any:
    return _choose(plain, tpu, x, places)

  def backward(places: Any, cotangent: Any) -> Any:
    back = transposed(plain), transposed(tpu)
    return _choose(*back, cotangent, places), None

  apply.defvjp(lambda x, places: (apply(x, places), places), backward)
  return apply(x, places)


def _choose(plain: _Linear, tpu: _Linear, *arguments: Any) -> Any:
  return jax.lax.platform_dependent(*arguments, tpu=tpu, default=plain)


def _slices(x: Any, steps: Any) -> Any:
  """`moved_right` by a slice of each row."""
  n = x.shape[-1]
  rows = x.reshape(steps.size, -1, n)
  rows = jnp.pad(rows, ((0, 0), (0, 0), (n, 0)))
  moved = jax.vmap(
    lambda row, start: jax.lax.dynamic_slice_in_dim(row, start, n, axis=1)
  )(rows, n - steps.ravel())
  return moved.reshape(x.shape)


def _by_stages(x: Any, steps: Any, to_right: bool) -> Any:
  """Moves rows by 1, 2, 4... places in turn, those whose steps have the bit."""
  n = x.shape[-1]
  steps = jnp.expand_dims(steps, tuple(range(steps.ndim, x.ndim)))
  for bit in range(n.bit_length()):
    gone = min(1 << bit, n)
    kept = x[..., : n - gone] if to_right else x[..., gone:]
    filled = (gone, 0) if to_right else (0, gone)
    moved = jnp.pad(kept, [(0, 0)] * (x.ndim - 1) + [filled])
    x = jnp.where((steps >> bit) & 1 == 1, moved, x)
  return x


def _one_by_one(x: Any, index: Any) -> Any:
  return jnp.take_along_axis(x, index, axis=-1)


def _put_one_by_one(x: Any, index: Any, n: Any) -> Any:
  rows = [
    jax.lax.broadcasted_iota(jnp.int32, index.shape, axis)
    for axis in range(index.ndim - 1)
  ]
  return jnp.zeros((*x.shape[:-1], n), x.dtype).at[*rows, index].add(x)


def _put_by_comparing(x: Any, index: Any, n: Any) -> Any:
  places = jax.lax.broadcasted_iota(index.dtype, (*index.shape, n), x.ndim)
  here = places == index[..., None]
  return jnp.sum(jnp.where(here, x[..., None], 0), axis=-2)


def _compared(x: Any, index: Any) -> Any:
  """`taken` by comparing each place with each index."""
  places = jax.lax.broadcasted_iota(
    index.dtype, (*index.shape, x.shape[-1]), x.ndim
  )
  here = places == index[..., None]
  return jnp.sum(jnp.where(here, x[..., None, :], 0), axis=-1)
