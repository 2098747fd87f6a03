"""The search kernel for GPU (Pallas, Triton).

A program goes over the keys of one history for one tile of targets, with the
lists of `lanes` in registers. Compiled for, not yet run on, a GPU.
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

from dare_jax.serving.kernels import lanes as lists

# The least that its matrix units take, of targets and of dimensions.
_UNIT = 16
# Lists of a row, which is also the behaviors scored at once.
_WIDTH = 64
_WARPS = 4


def search(
  operands: lists.Operands, k: int, interpret: bool = False
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k']]:
  """Returns slots and scores of the k best behaviors of each row.

  Args:
    operands: what is searched, and for what.
    k: behaviors to keep, at most l.
    interpret: whether to run as plain operations, on any platform.
  """

  def run(depth: int) -> tuple[Any, Any, Any]:
    return _call(operands, k, depth, interpret)

  length = operands.length
  places, scores = lists.exact(run, k, length, operands.rows, _WIDTH)
  return lists.slots(places, operands.oldest, length, _WIDTH), scores


def _call(
  operands: lists.Operands, k: int, depth: int, interpret: bool
) -> tuple[Any, Any, Any]:
  """Returns places, scores, and above 0 where a list ran out."""
  queries, keys, scale, bias, oldest = operands
  b, c, d = queries[0].shape
  rows = -(-c // _UNIT) * _UNIT
  dim, kept = _power(max(d, _UNIT)), _power(k)
  padding = ((0, 0), (0, rows - c), (0, dim - d))
  padded = [jnp.pad(own, padding) for own in queries]
  histories = [oldest[:, None], keys, bias]
  if scale is not None:
    histories.append(scale)
  places, scores, ran_out = pl.pallas_call(
    functools.partial(_kernel, len(queries), k, depth),
    grid=(b, rows // _UNIT),
    in_specs=[
      *(_target_spec(dim) for _ in padded),
      *(_history_spec(x) for x in histories),
    ],
    out_specs=tuple(_target_spec(size) for size in (kept, kept, 1)),
    out_shape=(
      jax.ShapeDtypeStruct((b, rows, kept), jnp.int32),
      jax.ShapeDtypeStruct((b, rows, kept), jnp.float32),
      jax.ShapeDtypeStruct((b, rows, 1), jnp.int32),
    ),
    compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=2),
    interpret=interpret,
    name='search_top_k',
  )(*padded, *histories)
  return places[:, :c, :k], scores[:, :c, :k], ran_out[:, :c]


def _target_spec(size: int) -> pl.BlockSpec:
  return pl.BlockSpec((None, _UNIT, size), lambda i, j: (i, j, 0))


def _history_spec(operand: Any) -> pl.BlockSpec:
  zeros = (0,) * (operand.ndim - 1)
  return pl.BlockSpec((None, *operand.shape[1:]), lambda i, j: (i, *zeros))


def _kernel(num_queries: int, k: int, depth: int, *refs: Any) -> None:
  oldest, key, bias, *scale, indices, found, ran_out = refs[num_queries:]
  d, length = key.shape
  queries = [query[...] for query in refs[:num_queries]]
  tile, dim = queries[0].shape
  shape = (tile, _WIDTH)
  oldest = oldest[0]

  def take_in(step: Any, state: Any) -> Any:
    first = lists.block_of(step, oldest, length, _WIDTH) * _WIDTH
    slot = first + jnp.arange(_WIDTH)
    dimension = jnp.arange(dim)[:, None]
    inside = (slot < length) & lists.is_met(slot, step, oldest, length, _WIDTH)
    real = inside[None, :] & (dimension < d)
    block = plt.load(key.at[dimension, slot[None, :]], mask=real, other=0)
    row = plt.load(bias.at[slot], mask=inside, other=-jnp.inf)
    product = lists.products(queries, block)
    for ref in scale:
      product *= plt.load(ref.at[slot], mask=inside, other=0)[None, :]
    values, steps = state
    scores = lists.rank(product, row[None, :])
    return lists.insert(values, steps, scores, step)

  values = (jnp.full(shape, -jnp.inf, jnp.float32),) * depth
  steps = (jnp.full(shape, lists.EMPTY, jnp.int32),) * depth
  state = jax.lax.fori_loop(
    0, lists.visits(length, _WIDTH), take_in, (values, steps)
  )

  def draw(place: Any, carried: Any) -> Any:
    state, index, score = carried
    best, drawn, *state = lists.draw(*state)
    here = jax.lax.broadcasted_iota(jnp.int32, index.shape, 1) == place
    return (
      tuple(state),
      jnp.where(here, drawn, index),
      jnp.where(here, best, score),
    )

  index = jnp.zeros(indices.shape, jnp.int32)
  score = jnp.zeros(indices.shape, jnp.float32)
  state, index, score = jax.lax.fori_loop(0, k, draw, (state, index, score))
  indices[...] = index
  found[...] = score
  gave_all = lists.ran_out(state[1]).astype(jnp.int32)
  ran_out[...] = jnp.max(gave_all, axis=1, keepdims=True)


def _power(size: int) -> int:
  """Returns the least power of two that is not below `size`."""
  return 1 << (size - 1).bit_length()
