"""The distinct rows that a batch reads, found on the host or on the device.

A batch of 10^5 ids reads some 10^4 rows of a table of 10^7. Training gathers
these into a small table, and the batch's ids point into that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Int
from jaxtyping import Int32
import numpy as np

from dare_jax import types
from dare_jax.tables import layout

_SMALLEST = 256


class UniqueRows(NamedTuple):
  """Ids of a batch by place among the rows that it reads, and those rows.

  Attributes:
    ids: field -> the ids, shaped as they were given; those of a field in `rows`
      point into `rows[field]`, those of other fields are as they were.
    rows: field -> int32 [u], ascending positions in storage (`layout`), first
      that of row 0, each once. What lies beyond the table is filling. Of
      several devices, one after the other, u for each.
  """

  ids: dict[str, Any]
  rows: dict[str, types.Array]


def row_capacity(count: int) -> int:
  """Returns the capacity for `count` rows: 4, 5, 6 or 7 times a power of two.

  At most a quarter of it is empty, and there are four sizes for each doubling,
  so that few programs are compiled.

  >>> [row_capacity(n) for n in (1, 256, 257, 1025)]
  [256, 256, 320, 1280]
  """
  if count <= _SMALLEST:
    return _SMALLEST
  unit = 1 << max(0, (count - 1).bit_length() - 3)
  return -(-count // unit) * unit


class RowFinder:
  """Finds the distinct rows of batches on the host, for each device apart.

  Each device gets rows of its own part of a batch, and as large a row capacity
  as any other device.

  Not for two threads at once: it keeps an int32 for each row of each field, so
  that finding the distinct ids takes no sort and no pass over the rows.
  """

  def __init__(self, vocab_sizes: Mapping[str, int], devices: int = 1) -> None:
    """Makes a finder.

    Args:
      vocab_sizes: field -> rows of its tables; `TableSet.vocab_sizes`.
      devices: number of devices of this process; a batch is split evenly over
        them.
    """
    self._devices = devices
    self._place = {
      field: np.empty(size, np.int32) for field, size in vocab_sizes.items()
    }

  def __call__(self, ids: Mapping[str, Any]) -> UniqueRows:
    """Returns the rows that a batch reads, and ids that point into them.

    Args:
      ids: field -> NumPy integers, an array or a tree of arrays whose first
        axis is the batch. Fields without large tables may be among them.

    Raises:
      IndexError: an id lies beyond its table, or is negative.
      ValueError: the first axis cannot be split evenly over the devices.
    """
    found, rows = dict(ids), {}
    for field, place in self._place.items():
      leaves, tree = jax.tree.flatten(ids[field])
      self._check(field, leaves)
      places, rows[field] = self._find(leaves, place)
      found[field] = jax.tree.unflatten(tree, places)
    return UniqueRows(found, rows)

  def capacities(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the row capacity of each device, int64, one for each field."""
    sizes = [len(rows[field]) for field in self._place]
    return np.array(sizes, np.int64) // self._devices

  def widen(
    self, rows: Mapping[str, np.ndarray], capacities: Sequence[int] | np.ndarray
  ) -> dict[str, np.ndarray]:
    """Returns the rows padded to other row capacities.

    The processes of a mesh agree in this way on the shape of their batch.

    Args:
      rows: `UniqueRows.rows`: field -> int32 [u].
      capacities: int [fields], in the order of `capacities`, the row capacity
        that each device shall have; not less than it has.
    """
    return {
      field: _widen(
        rows[field].reshape(self._devices, -1),
        int(capacity),
        layout.padded(len(place)),
      ).ravel()
      for (field, place), capacity in zip(
        self._place.items(), capacities, strict=True
      )
    }

  def _check(self, field: str, leaves: Sequence[np.ndarray]) -> None:
    size = len(self._place[field])
    for leaf in leaves:
      if len(leaf) % self._devices:
        raise ValueError(
          f'{field}: a batch of {len(leaf)} for {self._devices} devices;'
          ' expected a multiple of that.'
        )
      low, high = leaf.min(initial=0), leaf.max(initial=0)
      if low < 0 or high >= size:
        raise IndexError(
          f'{field}: the ids of a batch go from {low} to {high}; expected 0 to'
          f' {size - 1}, as the tables of {field} have {size} rows.'
        )

  def _find(
    self, leaves: Sequence[np.ndarray], place: np.ndarray
  ) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns places of the ids of one field, shaped as these, and rows."""
    places = [np.empty(leaf.shape, np.int32) for leaf in leaves]
    rows = []
    for device in range(self._devices):
      parts = [_part(leaf, device, self._devices) for leaf in leaves]
      own, found = _distinct(np.concatenate([p.ravel() for p in parts]), place)
      rows.append(own)
      ends = np.cumsum([part.size for part in parts])[:-1]
      for whole, part in zip(places, np.split(found, ends), strict=True):
        target = _part(whole, device, self._devices)
        target[...] = part.reshape(target.shape)
    capacity = max(map(len, rows))
    beyond = layout.padded(len(place))
    wide = [_widen(own[None], capacity, beyond)[0] for own in rows]
    return places, np.concatenate(wide)


def _part(values: np.ndarray, device: int, devices: int) -> np.ndarray:
  size = len(values) // devices
  return values[device * size : (device + 1) * size]


def _widen(rows: np.ndarray, capacity: int, beyond: int) -> np.ndarray:
  """Returns rows [devices, r] padded to [devices, capacity]."""
  filling = beyond + np.arange(rows.shape[1], capacity, dtype=rows.dtype)
  filling = np.broadcast_to(filling, (len(rows), len(filling)))
  return np.concatenate([rows, filling], axis=1)


def _distinct(
  ids: Int[np.ndarray, ' n'], place: Int32[np.ndarray, ' size']
) -> tuple[Int32[np.ndarray, ' u'], Int32[np.ndarray, ' n']]:
  """Returns positions of the distinct ids and 0, and each id's place in them.

  The positions are padded to a capacity. Of each id one occurrence is left
  standing in `place`; these are the distinct ids. What `place` holds elsewhere
  is never read.
  """
  occurrence = np.arange(len(ids), dtype=np.int32)
  place[ids] = occurrence
  distinct = ids[place[ids] == occurrence]
  if not (distinct == 0).any():
    distinct = np.append(distinct, np.zeros(1, distinct.dtype))
  stored = layout.padded(len(place))
  position = layout.position(distinct.astype(np.int64), stored)
  order = np.argsort(position)
  place[distinct[order]] = np.arange(len(distinct), dtype=np.int32)
  capacity = row_capacity(len(distinct))
  rows = np.arange(stored, stored + capacity, dtype=np.int32)
  rows[: len(distinct)] = position[order]
  return rows, place[ids]


def find_rows(
  ids: Mapping[str, Any], vocab_sizes: Mapping[str, int]
) -> UniqueRows:
  """Returns what a `RowFinder` does, inside a jitted function.

  Args:
    ids: field -> JAX integers, an array or a tree of arrays, not negative and
      below the field's rows.
    vocab_sizes: field -> rows of its tables; other fields stay as they are.
  """
  found, rows = dict(ids), {}
  for field, size in vocab_sizes.items():
    if field in ids:
      found[field], rows[field] = on_device(ids[field], size)
  return UniqueRows(found, rows)


def on_device(ids: Any, vocab_size: int) -> tuple[Any, Int[Array, ' u']]:
  """Finds the rows of one field as a `RowFinder` does, in a jitted function.

  The row capacity is the number of ids, or of the table's rows if that is less.
  Ids are not checked.

  Args:
    ids: JAX integers, an array or a tree of arrays.
    vocab_size: rows of the field's tables.

  Returns:
    The ids by place among the rows, and the rows, as in `UniqueRows`.
  """
  leaves, tree = jax.tree.flatten(ids)
  padding = jnp.zeros(1, leaves[0].dtype)
  flat = jnp.concatenate([padding, *(leaf.ravel() for leaf in leaves)])
  stored = layout.padded(vocab_size)
  capacity = min(flat.size, vocab_size)
  rows, places = jnp.unique(
    layout.position(flat, stored),
    size=capacity,
    fill_value=stored,
    return_inverse=True,
  )
  rows += jnp.where(rows == stored, jnp.arange(capacity, dtype=rows.dtype), 0)
  ends = np.cumsum([leaf.size for leaf in leaves])[:-1].tolist()
  parts = jnp.split(places[1:], ends)
  found = [
    part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)
  ]
  return jax.tree.unflatten(tree, found), rows
