"""A few users at a time, so that what is made for them stays in caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeVar

import jax
import jax.numpy as jnp

_Found = TypeVar('_Found')


def of_users(
  find: Callable[[Callable[[Any], Any]], _Found], users: int, size: int
) -> _Found:
  """Returns what `find` does of all users, made of `size` at a time.

  A loop, not a `vmap`, which would run both sides of every condition. It has no
  gradient: what is found carries none.

  Args:
    find: called for each turn with a function that takes the users of this turn
      out of an array [users, ...]; returns arrays with one row for each of
      them.
    users: number of users in the arrays.
    size: number of users at a time; all of them or more: all at once.

  >>> import jax.numpy as jnp
  >>> scores = jnp.array([[1, 5], [7, 2], [3, 4]])
  >>> of_users(lambda take: take(scores).max(axis=1), users=3, size=2).tolist()
  [5, 7, 4]
  """
  if size >= users:
    return find(lambda x: x)

  def some(first: Any) -> _Found:
    return find(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size))

  def turn(i: Any, found: _Found) -> _Found:
    # The last turn does some users again.
    first = jnp.minimum(i * size, users - size)
    put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
      old, new, first, axis=0
    )
    return jax.tree.map(put, found, some(first))

  empty = jax.tree.map(
    lambda x: jnp.zeros((users, *x.shape[1:]), x.dtype),
    jax.eval_shape(some, jnp.int32(0)),
  )
  return jax.lax.fori_loop(0, -(-users // size), turn, empty)
