"""The category's part of scores, made once for all behaviors of a category."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Integer

from dare_jax.serving import products

# Dimensions of a category from which on its score is looked up sooner than its
# keys are read, of float32 and of narrower keys.
_LEAST_DIM = 8
_LEAST_NARROW_DIM = 16


def suit(
  num_categories: int,
  dim: int,
  length: int,
  candidates: int = 1,
  precision: str = 'float32',
) -> bool:
  """Returns whether a search is faster that scores each category once.

  On a CPU, as measured in docs/searching.md: a look-up takes the time of
  reading some dimensions, and every category is scored, be it in the history
  or not.

  Args:
    num_categories: rows of the table of category keys.
    dim: width of that table.
    length: number of behaviors in a history.
    candidates: number of targets of a search.
    precision: precision of the keys, one of `products.PRECISIONS`.

  >>> suit(num_categories=300, dim=16, length=10_000)
  True
  """
  least = _LEAST_DIM if precision == 'float32' else _LEAST_NARROW_DIM
  return dim >= max(least, 2 * candidates) and num_categories <= 2 * length


def stored(category: Integer[Array, 'b l'], num_categories: int) -> Any:
  """Returns ids in the narrowest dtype that tells so many apart."""
  for kind in (jnp.uint8, jnp.uint16):
    if num_categories <= jnp.iinfo(kind).max + 1:
      return fitted(category, kind)
  return fitted(category, jnp.int32)


def fitted(category: Integer[Array, ...], kind: Any) -> Any:
  """Returns ids in another dtype; those beyond it are its last."""
  return jnp.clip(category, 0, jnp.iinfo(kind).max).astype(kind)


def are_looked_up(candidates: int, table: Float[Array, 'n e']) -> bool:
  """Returns whether scores are looked up for each candidate, as the fewer.

  Else the keys of categories are, for all candidates.
  """
  return candidates <= table.shape[-1]


def scores(
  query: Float[Array, 'b c e'],
  category: Integer[Array, 'b l'],
  table: Float[Array, 'n e'],
) -> Float[Array, 'b c l']:
  """Returns <q, key of the category> of all behaviors.

  Args:
    query: float [b, c, e], the category's part of the queries.
    category: categories of the behaviors; one beyond the table counts as its
      last row.
    table: keys of all categories.
  """
  if are_looked_up(query.shape[1], table):
    each = jnp.einsum('bce,ne->bcn', query, table, precision=products.EXACT)
    return _look_up(each, category)
  return jnp.einsum(
    'bce,bel->bcl', query, columns(category, table), precision=products.EXACT
  )


def columns(
  category: Integer[Array, 'b l'], table: Float[Array, 'n e']
) -> Float[Array, 'b e l']:
  """Returns the category keys of behaviors, as `products.narrow` has them."""
  shape = (len(category), *table.shape[::-1])
  return _look_up(jnp.broadcast_to(table.T, shape), category)


def _look_up(
  values: Float[Array, 'b i n'], category: Integer[Array, 'b l']
) -> Float[Array, 'b i l']:
  index = category[:, None].astype(jnp.int32)
  return jnp.take_along_axis(values, index, axis=-1, mode='clip')
