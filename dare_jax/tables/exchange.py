"""Rows of a table that is split over devices, sent to those that ask for them.

Inside `jax.shard_map` over the mesh's axis. Each device holds a block of the
table and a sorted list of distinct positions that its part of the batch reads.
It sends each owner the positions that lie there, gets the rows, and returns
their gradients the same way: two exchanges all to all, whose bytes follow the
rows asked for and neither the table nor the number of devices.

An exchange carries up to `capacity` positions for each pair of devices. Where
one pair needs more, all go more rounds, each for a slice of every block. The
slice follows from the position, so all who ask for a row ask in the same
round, and its owner can sum what they return before the row moves, once.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Shaped

from dare_jax.parallel import mesh

T = TypeVar('T')


def num_devices() -> int:
  return jax.lax.axis_size(mesh.AXIS)


def first_row(own_rows: int) -> jax.Array:
  """Returns the position of the first row that this device owns."""
  return jax.lax.axis_index(mesh.AXIS) * own_rows


def capacity(num_asked: int, devices: int) -> int:
  """Returns the positions that a device may ask of one owner in a round.

  Rows lie as if dealt out at random: six standard deviations above the mean
  make a second round rare.
  """
  mean = num_asked / devices
  return min(num_asked, 8 * int(-(-(mean + 6 * mean**0.5 + 8) // 8)))


def gather(
  blocks: Sequence[Float[Array, 'r _']],
  rows: Int[Array, ' u'],
  row_capacity: int | None = None,
) -> list[Float[Array, 'u _']]:
  """Returns the rows of tables that lie alike.

  Args:
    blocks: this device's rows of each table, [own_rows, width], of one dtype.
    rows: int32 [u], ascending positions in the whole table; those beyond it
      read zeros.
    row_capacity: positions that one round carries for each pair of devices;
      None: what `capacity` gives.

  Returns:
    [u, width] for each table.
  """
  if num_devices() == 1:
    return [take(block, rows) for block in blocks]

  def read(rows: jax.Array, ascending: bool) -> jax.Array:
    return jnp.concatenate([take(b, rows, ascending) for b in blocks], axis=1)

  found = collect(read, rows, len(blocks[0]), row_capacity)
  return split(found, [block.shape[1] for block in blocks])


def collect(
  read: Callable[[jax.Array, bool], jax.Array],
  rows: Int[Array, ' u'],
  own_rows: int,
  row_capacity: int | None = None,
) -> Float[Array, 'u w']:
  """Returns the values that the owners of rows read from them.

  Args:
    read: gets rows of its own block, those to leave out beyond it, and whether
      they are ascending; returns a value of each, [n, width].
    rows: int32 [u], ascending positions in the whole table.
    own_rows: rows of a block.
    row_capacity: positions that one round carries for each pair of devices;
      None: what `capacity` gives.
  """
  if num_devices() == 1:
    return read(rows, True)

  def answer(asks: _Asks, asked: jax.Array, found: jax.Array) -> jax.Array:
    values = read(asked.ravel(), False)
    values = _swap(values.reshape(*asked.shape, -1))
    return found.at[asks.slot].set(values, mode='drop', unique_indices=True)

  shape = jax.eval_shape(lambda rows: read(rows, False), rows)
  found = varying(jnp.zeros(shape.shape, shape.dtype))
  return _in_rounds(answer, found, rows, own_rows, row_capacity)


def give_back(
  owner: Callable[[jax.Array, list[jax.Array], jax.Array, T], T],
  carry: T,
  grads: Sequence[Float[Array, 'u _']],
  rows: Int[Array, ' u'],
  own_rows: int,
  row_capacity: int | None = None,
) -> T:
  """Brings gradients of rows to their owners; returns the owner's last carry.

  Args:
    owner: returns the next carry, from four arguments: int [n], rows of its own
      block, ascending and distinct, those beyond the block to be left out; for
      each table float [n, width], the gradients of these rows, summed over all
      devices; int32, the number of the round; and the carry.
    carry: the carry that the first call of the owner gets.
    grads: float [u, width] for each table, the gradients of `rows` on this
      device.
    rows: int32 [u], ascending positions in the whole table.
    own_rows: rows of a block.
    row_capacity: positions that one round carries for each pair of devices;
      None: what `capacity` gives.
  """
  if num_devices() == 1:
    return owner(rows, list(grads), jnp.zeros((), jnp.int32), carry)
  widths = [grad.shape[1] for grad in grads]
  joined = jnp.concatenate(list(grads), axis=1)

  def receive(asks: _Asks, asked: jax.Array, carry: T) -> T:
    values = _swap(joined.at[asks.slot].get(mode='fill', fill_value=0))
    values = values.reshape(-1, sum(widths))
    unique, sums = _sum_by_row(asked.ravel(), values, own_rows)
    return owner(unique, split(sums, widths), asks.round, carry)

  return _in_rounds(receive, carry, rows, own_rows, row_capacity)


def take(
  block: Shaped[Array, 'r ...'], rows: Int[Array, ' u'], ascending: bool = True
) -> Shaped[Array, 'u ...']:
  """Returns distinct rows of a block; zeros for rows beyond it.

  Args:
    block: [r, ...], rows of a table.
    rows: int [u], which rows, each at most once.
    ascending: whether they are in order, which lets them be read faster.
  """
  return block.at[rows].get(
    mode='fill',
    fill_value=0,
    unique_indices=ascending,
    indices_are_sorted=ascending,
  )


class _Asks:
  """The rows that this device asks of each owner in one round.

  Attributes:
    round: the number of the round.
    slot: int [devices, capacity], indices into the rows asked for; beyond them
      where there is less to ask than the row capacity.
    row: int [devices, capacity], rows of the owner's block; beyond the block
      where there is less to ask.
  """

  def __init__(
    self,
    rows: jax.Array,
    number: Any,
    shift: Any,
    own_rows: int,
    row_capacity: int,
  ) -> None:
    owner = jnp.arange(num_devices(), dtype=rows.dtype)
    low = number << shift
    high = jnp.minimum(low + (1 << shift), own_rows)
    begin = jnp.searchsorted(rows, owner * own_rows + low)
    end = jnp.searchsorted(rows, owner * own_rows + high)
    slot = begin[:, None] + jnp.arange(row_capacity)[None, :]
    is_asked = slot < end[:, None]
    row = rows.at[slot].get(mode='clip') - owner[:, None] * own_rows
    beyond = len(rows) + jnp.arange(slot.size).reshape(slot.shape)
    self.round = number
    self.slot = jnp.where(is_asked, slot, beyond)
    self.row = jnp.where(is_asked, row, own_rows)


def _in_rounds(
  function: Callable[[_Asks, jax.Array, T], T],
  carry: T,
  rows: jax.Array,
  own_rows: int,
  row_capacity: int | None,
) -> T:
  """Calls `function` with the asks of each round, and those received."""
  row_capacity = row_capacity or capacity(len(rows), num_devices())
  shift = _slice_bits(rows, own_rows, row_capacity)

  def one(number: jax.Array, carry: T) -> T:
    asks = _Asks(rows, number, shift, own_rows, row_capacity)
    return function(asks, _swap(asks.row), carry)

  return jax.lax.fori_loop(0, ((own_rows - 1) >> shift) + 1, one, carry)


def _slice_bits(rows: jax.Array, own_rows: int, row_capacity: int) -> jax.Array:
  """Returns s such that slices of 2^s rows of any block fit into a round.

  The same on all devices. Slices halve until none holds more than
  `row_capacity` of the positions asked for. These are sorted, so a slice holds
  more if two positions that are `row_capacity` places apart fall into it.
  """
  whole = max(own_rows - 1, 1).bit_length()
  near, far = rows[: len(rows) - row_capacity], rows[row_capacity:]
  is_real = far < num_devices() * own_rows

  def too_wide(shift: jax.Array) -> jax.Array:
    same_owner = near // own_rows == far // own_rows
    same_slice = near % own_rows >> shift == far % own_rows >> shift
    return jnp.any(is_real & same_owner & same_slice)

  start = varying(jnp.asarray(whole, rows.dtype))
  bits = jax.lax.while_loop(too_wide, lambda shift: shift - 1, start)
  return jax.lax.pmin(bits, mesh.AXIS)


def _sum_by_row(
  rows: Int[Array, ' n'], values: Float[Array, 'n w'], own_rows: int
) -> tuple[Int[Array, ' n'], Float[Array, 'n w']]:
  """Returns the distinct rows, ascending, and the sums of their values.

  As many as there are rows: the rest lies beyond the block.
  """
  order = jnp.argsort(rows)
  rows = rows[order]
  is_new = jnp.concatenate([varying(jnp.ones(1, bool)), rows[1:] != rows[:-1]])
  place = jnp.cumsum(is_new) - 1
  sums = jax.ops.segment_sum(
    values[order], place, len(rows), indices_are_sorted=True
  )
  filling = own_rows + 1 + jnp.arange(len(rows), dtype=rows.dtype)
  return filling.at[place].set(rows, mode='drop'), sums


def _swap(values: jax.Array) -> jax.Array:
  """Device i's entry j becomes device j's entry i."""
  return jax.lax.all_to_all(values, mesh.AXIS, 0, 0, tiled=True)


def varying(value: jax.Array) -> jax.Array:
  """Declares that a value may differ between devices."""
  return jax.lax.pcast(value, mesh.AXIS, to='varying')


def split(joined: jax.Array, widths: Sequence[int]) -> list[jax.Array]:
  """Splits columns that lie side by side into parts of some widths."""
  borders = [sum(widths[:i]) for i in range(1, len(widths))]
  return jnp.split(joined, borders, axis=1)
