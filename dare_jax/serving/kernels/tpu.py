"""The search kernel for TPU (Pallas, Mosaic).

Scores stay in VMEM. A block of behaviors is scored by the MXU and dealt out to
128 chunks, behavior i to chunk i % 128, and only the best of each chunk are
chosen from: the k best of a row lie in the k chunks with the best maxima. Of
those, members that are not maxima are looked at last, in the chunks whose
second best score may be among the k best: few, see `chunks`. The answer is
exact however many they are.

Behaviors are numbered by places, in order of age: a ring is gone through from
where its oldest behavior is, see `rings`. Of equal scores the later place, the
newer behavior, goes first.
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

from dare_jax.serving.kernels import chunks
from dare_jax.serving.kernels import factors
from dare_jax.serving.kernels import operands as operands_lib
from dare_jax.serving.kernels import rings

_SUBLANES = 8  # Of a vector register.
# TPUs with 16 MiB of VMEM.
_SMALL = ('TPU v2', 'TPU v3', 'TPU v4')


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How the work is cut.

  Attributes:
    block: behaviors in a block, a multiple of 128.
    tile: targets worked on at once, a multiple of 8.
    held: blocks whose scores are held until they are chosen from.
    memory: bytes of VMEM that the kernel may take.
  """

  block: int = 4096
  tile: int = 128
  held: int = 14
  memory: int = 48 << 20

  def block_of(self, length: int) -> int:
    """Returns the behaviors in a block of some history length."""
    return min(self.block, _up(length, chunks.LANES))

  def tile_of(self, c: int) -> int:
    """Returns how many of c targets to work on at once."""
    return min(_up(c, _SUBLANES), self.tile)

  def held_of(self, length: int) -> int:
    """Returns how many blocks to hold of some history length."""
    visits = rings.visits(length, self.block_of(length))
    return pl.cdiv(visits, pl.cdiv(visits, self.held))


def sizes_here() -> Sizes:
  """Returns the sizes for this machine's TPUs, or for those compiled for."""
  if jax.devices()[0].device_kind.startswith(_SMALL):
    return Sizes(tile=32, held=7, memory=16 << 20)
  return Sizes()


def search(
  operands: operands_lib.Operands,
  k: int,
  interpret: bool = False,
  sizes: Sizes | None = None,
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k']]:
  """Returns slots and scores of the k best behaviors of each row.

  Args:
    operands: what is searched, and for what.
    k: behaviors to keep, at most l.
    interpret: run as plain operations, on any platform.
    sizes: how the work is cut; None: as `sizes_here`.
  """
  sizes = sizes or sizes_here()
  with jax.enable_x64(False):  # Else loops would count in int64.
    places, scores = _call(operands, k, interpret, sizes)
  length = operands.length
  block = sizes.block_of(length)
  return rings.slots(places, operands.oldest, length, block), scores


def _call(
  operands: operands_lib.Operands, k: int, interpret: bool, sizes: Sizes
) -> tuple[Any, Any]:
  """Returns places and scores."""
  queries, keys, scale, bias, oldest = operands
  b, c, _ = queries[0].shape
  length = operands.length
  # Of words, the queries of even and odd dimensions: one again.
  query = jnp.stack(queries, axis=-1).reshape(b, c, -1)
  query = jnp.pad(query, ((0, 0), (0, -c % _SUBLANES), (0, 0)))
  query = factors.of_query(query)
  # What a block has beyond the history is then invisible, whatever it is.
  padding = ((0, 0), (0, -length % sizes.block_of(length)))
  bias = jnp.pad(bias, padding, constant_values=-jnp.inf)
  histories = [keys, bias[:, None]]
  if scale is not None:
    histories.append(scale[:, None])
  rows = query.shape[1]
  places, scores = pl.pallas_call(
    functools.partial(_kernel, k, length, scale is not None),
    grid_spec=_grid(query, histories, k, sizes),
    out_shape=(
      jax.ShapeDtypeStruct((b, rows, k), jnp.int32),
      jax.ShapeDtypeStruct((b, rows, k), jnp.float32),
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=sizes.memory,
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * b * rows * length * query.shape[2],
      transcendentals=0,
      bytes_accessed=bytes_moved(b, c, length, keys, k),
    ),
    interpret=interpret,
    name='search_top_k',
  )(oldest, query, *histories)
  return places[:, :c], scores[:, :c]


def _grid(query: Any, histories: list[Any], k: int, sizes: Sizes) -> Any:
  """Returns what a program of the kernel gets: histories, tiles, visits."""
  b, rows, width = query.shape
  length = histories[0].shape[2]
  tile, block = sizes.tile_of(rows), sizes.block_of(length)
  held = sizes.held_of(length)
  kept, shown = _up(k, chunks.LANES), held * chunks.LANES
  lanes = (kept + shown, kept + shown, shown, kept, kept)

  def of_target(size: int) -> pl.BlockSpec:
    return pl.BlockSpec((1, tile, size), lambda i, j, n, oldest: (i, j, 0))

  def of_history(x: Any) -> pl.BlockSpec:
    at = lambda n, oldest: rings.block_of(n, oldest, length, block)
    return pl.BlockSpec(
      (1, x.shape[1], block), lambda i, j, n, oldest: (i, 0, at(n, oldest[i]))
    )

  return pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=1,
    grid=(b, pl.cdiv(rows, tile), rings.visits(length, block)),
    in_specs=[of_target(width), *map(of_history, histories)],
    out_specs=(of_target(k), of_target(k)),
    scratch_shapes=(
      pltpu.VMEM(
        (held, block // chunks.LANES, tile, chunks.LANES), jnp.float32
      ),
      *(pltpu.VMEM((tile, size), jnp.float32) for size in lanes),
    ),
  )


def bytes_moved(b: int, c: int, length: int, keys: Any, k: int) -> int:
  """Returns the bytes that a search reads and writes, counted by hand.

  Each tile of targets reads the keys, the bias, and the scale of int8 once,
  each target its query; what is found is written. Not counted: the block that
  is met twice, where a ring begins within it.
  """
  tiles = -(-c // Sizes().tile_of(c))
  dtype = jnp.dtype(keys.dtype)
  width = keys.shape[1] * dtype.itemsize
  per_key = width + 4 + 4 * (dtype == jnp.int8)
  return b * (tiles * length * per_key + c * (4 * width + 8 * k))


def _kernel(k: int, length: int, has_scale: bool, *refs: Any) -> None:
  oldest, query, key, bias, *others = refs
  scale = others.pop(0) if has_scale else None
  places_found, found = others[:2]
  held = chunks.Held(*others[2:])
  blocks, steps = held.scores.shape[:2]
  block = steps * chunks.LANES
  first, visit = oldest[pl.program_id(0)], pl.program_id(2)
  last = pl.num_programs(2) - 1
  turn = jax.lax.rem(visit, jnp.int32(blocks))

  @pl.when(visit == 0)
  def _() -> None:
    held.clear_list()

  @pl.when(turn == 0)
  def _() -> None:
    held.clear_chunks()

  is_needed = (visit < last) | (jax.lax.rem(first, jnp.int32(block)) > 0)

  @pl.when(is_needed)
  def _() -> None:
    at = rings.block_of(visit, first, length, block) * block
    slot = at + jax.lax.broadcasted_iota(jnp.int32, bias.shape[1:], 1)
    is_met = rings.is_met(slot, visit, first, length, block)
    own = jnp.where(is_met, bias[0], -jnp.inf)
    shown = _score(query[0], key, own, scale, held.scores.at[turn])
    held.show(slice(None), turn, visit, shown)

  @pl.when((turn == blocks - 1) | (visit == last))
  def _() -> None:
    scored = turn + is_needed.astype(jnp.int32)
    chunks.choose(k, visit - turn, scored, held)

  @pl.when(visit == last)
  def _() -> None:
    places_found[0] = chunks.place(held.order[:, :k])
    found[0] = held.best[:, :k]


def _score(
  query: Any, key: Any, bias: Any, scale: Any, scores: Any
) -> chunks.Shown:
  """Writes the scores of a block, and returns what its chunks show."""
  shown = chunks.nothing(scores.shape[1])
  for s in range(scores.shape[0]):
    lanes = slice(s * chunks.LANES, (s + 1) * chunks.LANES)
    product = jax.lax.dot_general(
      query,
      factors.of_keys(key[0, :, lanes]),
      (((1,), (0,)), ((), ())),
      preferred_element_type=jnp.float32,
    )
    if scale is not None:
      product *= scale[0, :, lanes]
    new = operands_lib.rank(product, bias[:, lanes])
    scores[s] = new
    shown = chunks.with_next(shown, new, s)
  return shown


def _up(size: int, unit: int) -> int:
  return -(-size // unit) * unit
