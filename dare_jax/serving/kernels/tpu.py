"""The search kernel for TPU (Pallas, Mosaic).

Blocks of keys stream through VMEM, each of them once for every tile of
targets. The MXU scores a block, the lists of `lanes` take the scores in, and
what leaves the chip is the k found of each row.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.serving.kernels import lanes as lists

# Of a vector register.
_SUBLANES, _LANES = 8, 128


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How the work is cut.

  Attributes:
    width: lists of a row, a multiple of 128: many are drawn from slowly, few
      must be deep.
    block: behaviors in a block, a multiple of `width`.
    tile: targets worked on at once, a multiple of 8.
    state: bytes for the lists of a tile, which bounds it as well.
  """

  width: int = 512
  block: int = 4096
  tile: int = 128
  state: int = 4 << 20

  def block_of(self, length: int) -> int:
    """Returns the behaviors in a block of some history length."""
    return min(self.block, _up(length, self.width))

  def tile_of(self, c: int, depth: int) -> int:
    """Returns how many of c targets to work on at once."""
    fits = self.state // (8 * depth * self.width) // _SUBLANES * _SUBLANES
    most = max(_SUBLANES, min(fits, self.tile))
    return min(_up(c, _SUBLANES), most)


def search(
  operands: lists.Operands,
  k: int,
  interpret: bool = False,
  sizes: Sizes = Sizes(),
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k']]:
  """Returns slots and scores of the k best behaviors of each row.

  Args:
    operands: what is searched, and for what.
    k: behaviors to keep, at most l.
    interpret: run as plain operations, on any platform.
    sizes: how the work is cut.
  """

  def run(depth: int) -> tuple[Any, Any, Any]:
    with jax.enable_x64(False):  # Else loops would count in int64.
      return _call(operands, k, depth, interpret, sizes)

  length = operands.length
  places, scores = lists.exact(run, k, length, operands.rows, sizes.width)
  block = sizes.block_of(length)
  return lists.slots(places, operands.oldest, length, block), scores


def _call(
  operands: lists.Operands,
  k: int,
  depth: int,
  interpret: bool,
  sizes: Sizes,
) -> tuple[Any, Any, Any]:
  """Returns places, scores, and above 0 where a list ran out."""
  queries, keys, scale, bias, oldest = operands
  b, c, d = queries[0].shape
  length = operands.length
  tile = sizes.tile_of(c, depth)
  block = sizes.block_of(length)
  visits = lists.visits(length, block)
  rows = _up(c, _SUBLANES)
  queries = [jnp.pad(own, ((0, 0), (0, rows - c), (0, 0))) for own in queries]
  # What a block has beyond the history is then invisible, whatever it is.
  padding = ((0, 0), (0, (visits - 1) * block - length))
  bias = jnp.pad(bias, padding, constant_values=-jnp.inf)
  of_history = lambda i, j, n, oldest: (
    i,
    0,
    lists.block_of(n, oldest[i], length, block),
  )
  histories = [keys, bias[:, None]]
  if scale is not None:
    histories.append(scale[:, None])
  places, scores, ran_out = pl.pallas_call(
    functools.partial(_kernel, len(queries), scale is not None, k, length),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(b, pl.cdiv(rows, tile), visits),
      in_specs=[
        *(_target_spec(tile, d) for _ in queries),
        *(pl.BlockSpec((1, x.shape[1], block), of_history) for x in histories),
      ],
      out_specs=tuple(_target_spec(tile, size) for size in (k, k, 1)),
      scratch_shapes=(
        pltpu.VMEM((tile, block), jnp.float32),
        pltpu.VMEM((depth, tile, sizes.width), jnp.float32),
        pltpu.VMEM((depth, tile, sizes.width), jnp.int32),
      ),
    ),
    out_shape=(
      jax.ShapeDtypeStruct((b, rows, k), jnp.int32),
      jax.ShapeDtypeStruct((b, rows, k), jnp.float32),
      jax.ShapeDtypeStruct((b, rows, 1), jnp.int32),
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * b * rows * length * d * len(queries),
      transcendentals=0,
      bytes_accessed=bytes_moved(b, c, length, keys, k),
    ),
    interpret=interpret,
    name='search_top_k',
  )(oldest, *queries, *histories)
  return places[:, :c], scores[:, :c], ran_out[:, :c]


def _target_spec(tile: int, size: int) -> pl.BlockSpec:
  return pl.BlockSpec((1, tile, size), lambda i, j, n, oldest: (i, j, 0))


def bytes_moved(b: int, c: int, length: int, keys: Any, k: int) -> int:
  """Returns the bytes that a search reads and writes, counted by hand.

  Each tile of targets reads the keys, the bias, and the scale of int8 once,
  each target its query; what is found is written. Not counted: a second run,
  where the lists ran out, and the block that is met twice, where a ring begins
  within it.
  """
  sizes = Sizes()
  depth = lists.depth(k, length, b * c, sizes.width)
  tiles = -(-c // sizes.tile_of(c, depth))
  dtype = jnp.dtype(keys.dtype)
  width = keys.shape[1] * dtype.itemsize
  per_key = width + 4 + 4 * (dtype == jnp.int8)
  return b * (tiles * length * per_key + c * (4 * width + 8 * k + 4))


def _kernel(
  num_queries: int,
  has_scale: bool,
  k: int,
  length: int,
  oldest: Any,
  *refs: Any,
) -> None:
  queries, (key, bias, *others) = refs[:num_queries], refs[num_queries:]
  scale = others.pop(0) if has_scale else None
  places, found, ran_out, scores, values, steps = others
  first, visit = oldest[pl.program_id(0)], pl.program_id(2)
  block = scores.shape[1]

  @pl.when(visit == 0)
  def _() -> None:
    values[...] = jnp.full(values.shape, -jnp.inf, values.dtype)
    steps[...] = jnp.full(steps.shape, lists.EMPTY, steps.dtype)

  begins_within = jax.lax.rem(first, jnp.int32(block)) > 0

  @pl.when((visit < pl.num_programs(2) - 1) | begins_within)
  def _() -> None:
    product = lists.products([query[0] for query in queries], key[0])
    if scale is not None:
      product *= scale[0]
    at = lists.block_of(visit, first, length, block) * block
    slot = at + jax.lax.broadcasted_iota(jnp.int32, bias.shape[1:], 1)
    is_met = lists.is_met(slot, visit, first, length, block)
    scores[...] = lists.rank(product, jnp.where(is_met, bias[0], -jnp.inf))
    _take_in(scores, values, steps, visit)

  @pl.when(visit == pl.num_programs(2) - 1)
  def _() -> None:
    _draw_all(values, steps, places, found, ran_out, k)


def _take_in(scores: Any, values: Any, steps: Any, visit: Any) -> None:
  """Inserts a block of scores into the lists, a register of lists at a time."""
  depth, tile, width = values.shape
  steps_per_block = scores.shape[1] // width

  def rows(row: Any, _: None) -> None:
    at = pl.ds(pl.multiple_of(row * _SUBLANES, _SUBLANES), _SUBLANES)
    for lane in range(0, width, _LANES):
      lanes = slice(lane, lane + _LANES)
      value = tuple(values[t, at, lanes] for t in range(depth))
      step = tuple(steps[t, at, lanes] for t in range(depth))
      for s in range(steps_per_block):
        first = s * width + lane
        value, step = lists.insert(
          value,
          step,
          scores[at, first : first + _LANES],
          visit * steps_per_block + s,
        )
      for t in range(depth):
        values[t, at, lanes] = value[t]
        steps[t, at, lanes] = step[t]

  jax.lax.fori_loop(0, tile // _SUBLANES, rows, None)


def _draw_all(
  values: Any, steps: Any, places: Any, found: Any, ran_out: Any, k: int
) -> None:
  """Writes the k best entries of the lists, and which rows' lists ran out."""
  depth = values.shape[0]

  def one(place: Any, drawn: tuple[Any, Any]) -> tuple[Any, Any]:
    value = tuple(values[t] for t in range(depth))
    step = tuple(steps[t] for t in range(depth))
    best, index, value, step = lists.draw(value, step)
    for t in range(depth):
      values[t] = value[t]
      steps[t] = step[t]
    here = jax.lax.broadcasted_iota(jnp.int32, drawn[0].shape, 1) == place
    return (
      jnp.where(here, index, drawn[0]),
      jnp.where(here, best, drawn[1]),
    )

  shape = places.shape[1:]
  drawn = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
  places[0], found[0] = jax.lax.fori_loop(0, k, one, drawn)
  gave_all = lists.ran_out(tuple(steps[t] for t in range(depth)))
  ran_out[0] = jnp.max(gave_all.astype(jnp.int32), axis=1, keepdims=True)


def _up(size: int, unit: int) -> int:
  return -(-size // unit) * unit
