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

  def tile_of(self, c: int, depth: int) -> int:
    """Returns how many of c targets to work on at once."""
    fits = self.state // (8 * depth * self.width) // _SUBLANES * _SUBLANES
    most = max(_SUBLANES, min(fits, self.tile))
    return min(_up(c, _SUBLANES), most)


def search(
  queries: Float[Array, 'b c d'],
  keys: Float[Array, 'b l d'] | Int[Array, 'b l d'],
  bias: Float[Array, 'b l'],
  scale: Float[Array, 'b l'] | None,
  k: int,
  interpret: bool = False,
  sizes: Sizes = Sizes(),
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k']]:
  """Returns the k best behaviors of each row and their scores.

  Args:
    queries: of the targets, scaled already.
    keys: of the behaviors, float32, bfloat16 or int8.
    bias: added to the scores; -inf is invisible.
    scale: multiplies the products with each key; None is 1.
    k: behaviors to keep, at most l.
    interpret: run as plain operations, on any platform.
    sizes: how the work is cut.
  """

  def run(depth: int) -> tuple[Any, Any, Any]:
    with jax.enable_x64(False):  # Else loops would count in int64.
      return _call(queries, keys, bias, scale, k, depth, interpret, sizes)

  rows = queries.shape[0] * queries.shape[1]
  return lists.exact(run, k, keys.shape[1], rows, sizes.width)


def _call(
  queries: Any,
  keys: Any,
  bias: Any,
  scale: Any,
  k: int,
  depth: int,
  interpret: bool,
  sizes: Sizes,
) -> tuple[Any, Any, Any]:
  """Returns indices, scores, and above 0 where a list ran out."""
  b, c, d = queries.shape
  length = keys.shape[1]
  tile = sizes.tile_of(c, depth)
  block = min(sizes.block, _up(length, sizes.width))
  num_blocks = pl.cdiv(length, block)
  queries = jnp.pad(queries, ((0, 0), (0, _up(c, _SUBLANES) - c), (0, 0)))
  # What a block has beyond the history is then invisible, whatever it is.
  padding = ((0, 0), (0, num_blocks * block - length))
  bias = jnp.pad(bias, padding, constant_values=-jnp.inf)
  # Narrow keys lie in memory with the history along the lanes, where nothing
  # is padding: the compiler's own choice, so that this moves no byte.
  by_lanes = d % _LANES != 0
  if by_lanes:
    keys = jnp.swapaxes(keys, 1, 2)
    key_spec = pl.BlockSpec((1, d, block), lambda i, j, n: (i, 0, n))
  else:
    key_spec = pl.BlockSpec((1, block, d), lambda i, j, n: (i, n, 0))
  row_spec = pl.BlockSpec((1, 1, block), lambda i, j, n: (i, 0, n))
  specs = [_target_spec(tile, d), key_spec]
  operands = [queries, keys]
  for row in (bias, scale):
    if row is not None:
      specs.append(row_spec)
      operands.append(row[:, None, :])
  rows = queries.shape[1]
  indices, scores, ran_out = pl.pallas_call(
    functools.partial(_kernel, by_lanes, scale is not None, k),
    grid=(b, pl.cdiv(rows, tile), num_blocks),
    in_specs=specs,
    out_specs=tuple(_target_spec(tile, size) for size in (k, k, 1)),
    out_shape=(
      jax.ShapeDtypeStruct((b, rows, k), jnp.int32),
      jax.ShapeDtypeStruct((b, rows, k), jnp.float32),
      jax.ShapeDtypeStruct((b, rows, 1), jnp.int32),
    ),
    scratch_shapes=(
      pltpu.VMEM((tile, block), jnp.float32),
      pltpu.VMEM((depth, tile, sizes.width), jnp.float32),
      pltpu.VMEM((depth, tile, sizes.width), jnp.int32),
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * b * rows * length * d,
      transcendentals=0,
      bytes_accessed=bytes_moved(b, c, length, d, keys.dtype, k),
    ),
    interpret=interpret,
    name='search_top_k',
  )(*operands)
  return indices[:, :c], scores[:, :c], ran_out[:, :c]


def _target_spec(tile: int, size: int) -> pl.BlockSpec:
  return pl.BlockSpec((1, tile, size), lambda i, j, n: (i, j, 0))


def bytes_moved(b: int, c: int, length: int, d: int, dtype: Any, k: int) -> int:
  """Returns the bytes that a search reads and writes, counted by hand.

  Each tile of targets reads the keys, the bias, and the scale of int8 once,
  each target its query; what is found is written. A second run, where the
  lists ran out, is not counted.
  """
  sizes = Sizes()
  depth = lists.depth(k, length, b * c, sizes.width)
  tiles = -(-c // sizes.tile_of(c, depth))
  dtype = jnp.dtype(dtype)
  per_key = d * dtype.itemsize + 4 + 4 * (dtype == jnp.int8)
  return b * (tiles * length * per_key + c * (4 * d + 8 * k + 4))


def _kernel(by_lanes: bool, has_scale: bool, k: int, *refs: Any) -> None:
  query, key, bias, *others = refs
  scale = others.pop(0) if has_scale else None
  indices, found, ran_out, scores, values, steps = others
  block = pl.program_id(2)

  @pl.when(block == 0)
  def _() -> None:
    values[...] = jnp.full(values.shape, -jnp.inf, values.dtype)
    steps[...] = jnp.full(steps.shape, lists.EMPTY, steps.dtype)

  product = lists.products(query[0], key[0], 0 if by_lanes else 1)
  if scale is not None:
    product *= scale[0]
  scores[...] = lists.rank(product, bias[0])
  _take_in(scores, values, steps, block)

  @pl.when(block == pl.num_programs(2) - 1)
  def _() -> None:
    _draw_all(values, steps, indices, found, ran_out, k)


def _take_in(scores: Any, values: Any, steps: Any, block: Any) -> None:
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
          block * steps_per_block + s,
        )
      for t in range(depth):
        values[t, at, lanes] = value[t]
        steps[t, at, lanes] = step[t]

  jax.lax.fori_loop(0, tile // _SUBLANES, rows, None)


def _draw_all(
  values: Any, steps: Any, indices: Any, found: Any, ran_out: Any, k: int
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

  shape = indices.shape[1:]
  drawn = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
  indices[0], found[0] = jax.lax.fori_loop(0, k, one, drawn)
  gave_all = lists.ran_out(tuple(steps[t] for t in range(depth)))
  ran_out[0] = jnp.max(gave_all.astype(jnp.int32), axis=1, keepdims=True)


def _up(size: int, unit: int) -> int:
  return -(-size // unit) * unit
