"""The search kernel for GPU (Pallas, Triton).

The k best of a row lie in k groups of neighbours, those with the best maxima.
The kernel writes the maxima of a row's groups, never its scores: a program has
one block of a history and one tile of targets, so that the history of a single
user fills a card, and it keeps nothing from one block to the next. XLA then
chooses groups and scores the members of those alone, anew. Compiled for, not
yet run on, a GPU.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.serving.kernels import operands as operands_lib
from dare_jax.topk import rows as rows_lib
from dare_jax.topk import selection

_GROUP = rows_lib.GROUP
# Targets of a program at the most, and its behaviors.
_TILE, _BLOCK = 64, 64
# The least that matrix units take, of targets and of dimensions.
_UNIT = 16
# Float32 products on matrix units: of parts of 8 bits, all that count.
_FLOAT32 = jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X6


def search(
  operands: operands_lib.Operands, k: int, interpret: bool = False
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k']]:
  """Returns slots and scores of the k best behaviors of each row.

  Args:
    operands: what is searched, and for what.
    k: behaviors to keep, at most l.
    interpret: whether to run as plain operations, on any platform.
  """
  length = operands.length
  newest = (operands.oldest + (length - 1)) % length
  split = newest // _GROUP
  maxima = _maxima(operands, split, interpret)
  groups = maxima.shape[-1]
  # The newest group, the last, is the oldest as well where a ring begins
  # within: it is taken besides k others, whatever its maximum.
  maxima = jnp.where(jnp.arange(groups) == groups - 1, jnp.inf, maxima)
  place, _ = selection.top_k(
    maxima, jnp.ones(maxima.shape, bool), min(k + 1, groups)
  )
  group = (split[:, None, None] + 1 + place) % groups
  scores = jax.vmap(_scores)(operands, group).reshape(*group.shape[:2], -1)
  index = rows_lib.indices(group).reshape(scores.shape)
  age = (newest[:, None, None] - index) % length
  place, best = selection.best_of(scores, age, k)
  index = jnp.take_along_axis(index, place, axis=-1)
  return jnp.minimum(index, length - 1), best  # What is not kept may be any.


def _scores(
  operands: operands_lib.Operands, group: Int[Array, 'c m']
) -> Float[Array, 'c m w']:
  """Returns the scores of the members of each target's groups, of one user."""
  queries, keys, scale, bias, _ = operands

  def members(x: Any, fill: Any) -> Any:
    edge = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % _GROUP)]
    x = jnp.pad(x, edge, constant_values=fill)
    return x.reshape(*x.shape[:-1], -1, _GROUP)[..., group, :]

  wide = operands_lib.widened(members(keys, 0), len(queries))
  # No matrix product: what is summed is not written to memory before.
  product: Any = sum(
    jnp.sum(query.astype(jnp.float32).T[:, :, None, None] * key, axis=0)
    for query, key in zip(queries, wide, strict=True)
  )
  if scale is not None:
    product *= members(scale, 0)
  return operands_lib.rank(product, members(bias, -jnp.inf))


def _maxima(
  operands: operands_lib.Operands, split: Int[Array, ' b'], interpret: bool
) -> Float[Array, 'b c n']:
  """Returns the best score of each group, most recent last.

  Args:
    operands: what is searched, and for what.
    split: the group of each user's most recent behavior.
    interpret: run as plain operations.
  """
  b, c, _ = operands.queries[0].shape
  tile = min(_power(c), _TILE)
  shape = b, c, -(-operands.length // _GROUP)
  of_rows = [*operands.queries, operands.keys, operands.bias, split[:, None]]
  if operands.scale is not None:
    of_rows.append(operands.scale)
  return pl.pallas_call(
    functools.partial(_kernel, len(operands.queries), tile),
    grid=(pl.cdiv(c, tile), pl.cdiv(operands.length, _BLOCK), b),
    in_specs=[_whole(x) for x in of_rows],
    out_specs=_whole(jax.ShapeDtypeStruct(shape, jnp.float32)),
    out_shape=jax.ShapeDtypeStruct(shape, jnp.float32),
    compiler_params=plt.CompilerParams(num_warps=4),
    interpret=interpret,
    name='search_maxima',
  )(*of_rows)


def _whole(x: Any) -> pl.BlockSpec:
  """Returns all that there is of the user of a program."""
  zeros = (0,) * (x.ndim - 1)
  return pl.BlockSpec((None, *x.shape[1:]), lambda j, n, i: (i, *zeros))


def _power(size: int) -> int:
  """Returns the least power of two that holds `size`, and fills a unit."""
  return max(_UNIT, 1 << (size - 1).bit_length())


def _kernel(num_queries: int, tile: int, *refs: Any) -> None:
  keys, bias, split, *scale, maxima = refs[num_queries:]
  (c, groups), (d, length) = maxima.shape, keys.shape
  block = pl.program_id(1)
  row = pl.program_id(0) * tile + jnp.arange(tile)[:, None]
  slot = block * _BLOCK + jnp.arange(_BLOCK)
  group = block * (_BLOCK // _GROUP) + jnp.arange(_BLOCK // _GROUP)
  dim = jnp.arange(_power(d))
  is_there = slot < length
  queries = [
    plt.load(ref.at[row, dim[None]], mask=(row < c) & (dim < d)[None], other=0)
    for ref in refs[:num_queries]
  ]
  key = plt.load(
    keys.at[dim[:, None], slot[None]],
    mask=(dim < d)[:, None] & is_there[None],
    other=0,
  )
  product = operands_lib.products(queries, key, _FLOAT32)
  for ref in scale:
    product *= plt.load(ref.at[slot], mask=is_there, other=0)[None]
  added = plt.load(bias.at[slot], mask=is_there, other=-jnp.inf)
  scores = operands_lib.rank(product, added[None])
  best = jnp.max(scores.reshape(tile, -1, _GROUP), axis=-1)
  place = group - split[0] - 1
  place = jnp.where(place < 0, place + groups, place)
  is_there = (row < c) & (group < groups)[None]
  plt.store(maxima.at[row, place[None]], best, mask=is_there)
