"""The search kernel for TPU (Pallas, Mosaic).

Scores stay in VMEM. A block of behaviors is scored by the MXU and dealt out to
128 chunks, behavior i to chunk i % 128, and only the best of each chunk are
chosen from: the k best of a row lie in the k chunks with the best maxima. Of
those, members that are not maxima are looked at last. Few are among the k
best, so what is left to do is a loop that seldom goes round more than a few
times, and whose answer is exact however often it does.

Behaviors are numbered by places, in order of age: a ring is gone through from
where its oldest behavior is, see `rings`. Of equal scores the later place, the
newer behavior, goes first.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.serving.kernels import factors
from dare_jax.serving.kernels import operands as operands_lib
from dare_jax.serving.kernels import rings

# Of a vector register.
_SUBLANES, _LANES = 8, 128
# Rows gone through at once: one register of them waits for what it did last.
_ROWS = 32
# TPUs with 16 MiB of VMEM.
_SMALL = ('TPU v2', 'TPU v3', 'TPU v4')
# The bits of 1.0: floats from there on compare as their bits do.
_FIRST = 0x3F800000


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
    return min(self.block, _up(length, _LANES))

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
  entries = (tile, _up(k, _LANES) + held * _LANES)

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
      pltpu.VMEM((held, block // _LANES, tile, _LANES), jnp.float32),
      pltpu.VMEM(entries, jnp.float32),
      pltpu.VMEM(entries, jnp.float32),
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
  places_found, found, scores, best, order = others
  held, steps = scores.shape[:2]
  block, kept = steps * _LANES, best.shape[1] - held * _LANES
  first, visit = oldest[pl.program_id(0)], pl.program_id(2)
  last = pl.num_programs(2) - 1
  turn = jax.lax.rem(visit, jnp.int32(held))

  @pl.when(visit == 0)
  def _() -> None:
    best[:, :kept] = jnp.full((best.shape[0], kept), -jnp.inf)

  @pl.when(turn == 0)
  def _() -> None:
    best[:, kept:] = jnp.full((best.shape[0], held * _LANES), -jnp.inf)

  is_needed = (visit < last) | (jax.lax.rem(first, jnp.int32(block)) > 0)

  @pl.when(is_needed)
  def _() -> None:
    at = rings.block_of(visit, first, length, block) * block
    slot = at + jax.lax.broadcasted_iota(jnp.int32, bias.shape[1:], 1)
    is_met = rings.is_met(slot, visit, first, length, block)
    own = jnp.where(is_met, bias[0], -jnp.inf)
    shown, step = _score(query[0], key, own, scale, scores.at[turn])
    chunks = slice(None), _chunks(turn, best, held)
    best[chunks], order[chunks] = shown, _order_of(visit, step, steps)

  @pl.when((turn == held - 1) | (visit == last))
  def _() -> None:
    scored = turn + is_needed.astype(jnp.int32)
    _choose(k, visit - turn, scored, scores, best, order)

  @pl.when(visit == last)
  def _() -> None:
    places_found[0], found[0] = _place(order[:, :k]), best[:, :k]


def _score(
  query: Any, key: Any, bias: Any, scale: Any, scores: Any
) -> tuple[Any, Any]:
  """Writes the scores of a block.

  Returns:
    The best of each chunk, and its step: which of the chunk's behaviors it is.
  """
  shown = _nothing(scores.shape[1:])
  for s in range(scores.shape[0]):
    lanes = slice(s * _LANES, (s + 1) * _LANES)
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
    shown = _better(shown, new, s)
  return shown


def _nothing(shape: tuple[int, ...]) -> tuple[Any, Any]:
  return jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)


def _better(shown: tuple[Any, Any], new: Any, step: int) -> tuple[Any, Any]:
  """Returns the best of each chunk after a step more, and its step."""
  best, own = shown
  # Not above: of equals the newer comes first.
  return jnp.maximum(new, best), jnp.where(new >= best, step, own)


def _choose(
  k: int, first: Any, scored: Any, scores: Any, best: Any, order: Any
) -> None:
  """Brings the list at the head of `best` up to date, in order.

  Args:
    k: behaviors to keep.
    first: visit of the first of the blocks that are held.
    scored: how many are held.
    scores: theirs, [held, steps, tile, 128].
    best: of each row, the list, then what is shown of the chunks held.
    order: of their places.
  """
  tile = best.shape[0]
  kept = best.shape[1] - scores.shape[0] * _LANES

  def take(n: Any, listed: tuple[Any, Any]) -> Any:
    drawn = _draw(best, order)
    here = _lane((tile, kept)) == n
    return tuple(
      jnp.where(here, new, old) for new, old in zip(drawn, listed, strict=True)
    )

  nothing = jnp.full((tile, kept), -jnp.inf), jnp.zeros((tile, kept))
  listed = jax.lax.fori_loop(0, k, take, nothing)
  best[:, :kept] = nothing[0]

  def is_better(state: Any) -> Any:
    listed, drawn = state
    worst = [x[:, k - 1 : k] for x in listed]
    better = _is_before(drawn, worst) & (drawn[0] > -jnp.inf)
    return jnp.max(jnp.where(better, 1.0, 0.0)) > 0

  def insert(state: Any) -> Any:
    listed, drawn = state
    return _inserted(listed, drawn), _draw(best, order)

  def go_deeper(state: Any) -> Any:
    _show_next(first, scored, scores, best, order)
    state = state[0], _draw(best, order)
    is_done = ~is_better(state)
    listed, _ = jax.lax.while_loop(is_better, insert, state)
    return listed, is_done

  listed, _ = jax.lax.while_loop(
    lambda state: ~state[1], go_deeper, (listed, jnp.bool_(False))
  )
  best[:, :kept], order[:, :kept] = listed


def _show_next(
  first: Any, scored: Any, scores: Any, best: Any, order: Any
) -> None:
  """Shows the next best of each chunk; what was shown leaves `scores`."""
  held, steps, tile, _ = scores.shape
  size = math.gcd(tile, _ROWS)

  def of_rows(n: Any, group: Any) -> None:
    """Shows the next best of each chunk of some rows."""
    rows = pl.ds(pl.multiple_of(group * size, size), size)
    chunks = rows, _chunks(n, best, held)
    gone = (_place(order[chunks]) >> 7) - (first + n) * steps
    shown = _nothing(gone.shape)
    for s in range(steps):
      left = jnp.where(gone == s, -jnp.inf, scores[n, s, rows])
      scores[n, s, rows] = left
      shown = _better(shown, left, s)
    best[chunks] = shown[0]
    order[chunks] = _order_of(first + n, shown[1], steps)

  def of_block(n: Any, _: None) -> None:
    jax.lax.fori_loop(0, tile // size, lambda i, _: of_rows(n, i), None)

  jax.lax.fori_loop(0, scored, of_block, None)


def _chunks(turn: Any, best: Any, held: int) -> Any:
  """Returns where the chunks of a block are in `best`."""
  kept = best.shape[1] - held * _LANES
  return pl.ds(pl.multiple_of(kept + turn * _LANES, _LANES), _LANES)


def _draw(values: Any, order: Any) -> tuple[Any, Any]:
  """Takes the best entry of each row away, and returns it."""
  value, own = values[...], order[...]
  top = jnp.max(value, axis=1, keepdims=True)
  at = jnp.max(jnp.where(value == top, own, 0.0), axis=1, keepdims=True)
  values[...] = jnp.where(own == at, -jnp.inf, value)
  return top, at


def _inserted(listed: Any, new: Any) -> tuple[Any, Any]:
  """Returns lists with an entry more in each, what was last left out."""
  moved = [pltpu.roll(x, 1, 1) for x in listed]
  stays = _is_before(listed, new)
  is_next = (_lane(stays.shape) == 0) | _is_before(moved, new)
  value, place = (
    jnp.where(stays, old, jnp.where(is_next, entry, before))
    for old, entry, before in zip(listed, new, moved, strict=True)
  )
  return value, place


def _is_before(one: Any, other: Any) -> Any:
  """Returns where entries, scores and order, go before others."""
  return (one[0] > other[0]) | ((one[0] == other[0]) & (one[1] > other[1]))


def _order_of(visit: Any, step: Any, steps: int) -> Any:
  """Returns float32 that compare as places do: their maxima take less time."""
  place = (visit * steps + step) * _LANES + _lane(step.shape)
  return jax.lax.bitcast_convert_type(place + _FIRST, jnp.float32)


def _place(order: Any) -> Any:
  """Returns the places of what `_order_of` returns."""
  return jax.lax.bitcast_convert_type(order, jnp.int32) - _FIRST


def _lane(shape: tuple[int, ...]) -> Any:
  return jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)


def _up(size: int, unit: int) -> int:
  return -(-size // unit) * unit
