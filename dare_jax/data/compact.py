"""The rows that a batch reads, found on the host or on the device.

A batch of 10^5 ids reads some 10^4 rows of a table of 10^7. Training gathers
these into a small table, and the batch's ids point into that one.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import types
from dare_jax.tables import layout

_SMALLEST = 256


def bucket(count: int) -> int:
  """Returns the room for `count` rows: 4, 5, 6 or 7 times a power of two.

  At most a quarter of it is empty, and there are four sizes for each doubling,
  so that few programs are compiled.

  >>> [bucket(n) for n in (1, 256, 257, 1025)]
  [256, 256, 320, 1280]
  """
  if count <= _SMALLEST:
    return _SMALLEST
  unit = 1 << max(0, (count - 1).bit_length() - 3)
  return -(-count // unit) * unit


class Compactor:
  """Gives a batch ids into the rows that it reads, for each device apart.

  The batch's windows are split evenly; each device gets rows of its own, as
  positions in storage (`tables.layout`), and as much room as any other.

  Not for two threads at once: it keeps an int32 for each row of each table, so
  that finding the distinct ids takes no sort and no pass over the rows.
  """

  def __init__(self, vocab_sizes: Mapping[str, int], devices: int = 1) -> None:
    """Makes a compactor.

    Args:
      vocab_sizes: rows of the tables of each field to compact.
      devices: of this process.
    """
    self._devices = devices
    self._place = {
      field: np.empty(size, np.int32) for field, size in vocab_sizes.items()
    }

  def __call__(self, batch: types.Batch) -> types.Batch:
    """Returns the batch with `rows` and ids that point into them.

    Raises:
      IndexError: an id lies beyond its table.
    """
    if not self._place:
      return batch
    size = len(batch.end) // self._devices
    parts = [
      jax.tree.map(lambda x, at=at: x[at * size : (at + 1) * size], batch)
      for at in range(self._devices)
    ]
    parts = [self._compact(part) for part in parts]
    rooms = {
      field: max(len(part.rows[field]) for part in parts)
      for field in self._place
    }
    parts = [self.widen(part, rooms, devices=1) for part in parts]
    if len(parts) == 1:
      return parts[0]
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)

  def _compact(self, batch: types.Batch) -> types.Batch:
    for field, place in self._place.items():
      rows, places = _distinct(np.concatenate(_ids(batch, field)), place)
      batch = _with_rows(batch, field, rows, places)
    return batch

  def rooms(self, batch: types.Batch) -> np.ndarray:
    """Returns the room for rows on each device, one number for each field."""
    sizes = [len(batch.rows[field]) for field in self._place]
    return np.array(sizes, np.int64) // self._devices

  def widen(
    self,
    batch: types.Batch,
    rooms: Mapping[str, int] | np.ndarray,
    devices: int | None = None,
  ) -> types.Batch:
    """Returns the batch with at least that much room on each device."""
    if not isinstance(rooms, Mapping):
      rooms = dict(zip(self._place, rooms.tolist(), strict=True))
    rows = {
      field: _widen(
        batch.rows[field].reshape(devices or self._devices, -1),
        room,
        layout.padded(len(self._place[field])),
      )
      for field, room in rooms.items()
    }
    return dataclasses.replace(batch, rows={**batch.rows, **rows})


def _widen(rows: np.ndarray, room: int, beyond: int) -> np.ndarray:
  """Returns rows [devices, r] with more filling, flat."""
  filling = beyond + np.arange(rows.shape[1], room, dtype=rows.dtype)
  filling = np.broadcast_to(filling, (len(rows), len(filling)))
  return np.concatenate([rows, filling], axis=1).ravel()


def _distinct(
  ids: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns positions of the distinct ids and 0, and each id's place in them.

  The positions are padded to a bucket. Of each id one occurrence is left
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
  rows = np.arange(stored, stored + bucket(len(distinct)), dtype=np.int32)
  rows[: len(distinct)] = position[order]
  return rows, place[ids]


def find_on_device(batch: types.Batch, field: str, size: int) -> types.Batch:
  """Returns what a `Compactor` does for one field, inside a jitted step.

  There is room for as many rows as ids, or as the table has.

  Args:
    batch: without rows of this field.
    field: whose ids to replace.
    size: rows of its tables.
  """
  history, targets = _ids(batch, field)
  padding = jnp.zeros(1, history.dtype)
  ids = jnp.concatenate([padding, history, targets])
  stored = layout.padded(size)
  room = min(ids.size, size)
  rows, places = jnp.unique(
    layout.position(ids, stored),
    size=room,
    fill_value=stored,
    return_inverse=True,
  )
  rows += jnp.where(rows == stored, jnp.arange(room, dtype=rows.dtype), 0)
  return _with_rows(batch, field, rows, places[1:])


def _ids(batch: types.Batch, field: str) -> tuple[types.Array, types.Array]:
  """Returns the flat ids of the history and of the targets."""
  return batch.history.ids[field].ravel(), batch.targets.ids[field].ravel()


def _with_rows(
  batch: types.Batch, field: str, rows: types.Array, places: types.Array
) -> types.Batch:
  """Returns the batch with one field's rows, its ids replaced by `places`.

  Args:
    batch: host or device arrays.
    field: whose ids to replace.
    rows: as in `types.Batch`.
    places: for each of `_ids`, one after the other, its place in `rows`.
  """
  history, targets = batch.history, batch.targets
  shapes = history.ids[field].shape, targets.ids[field].shape
  split = history.ids[field].size
  own = {field: places[:split].reshape(shapes[0])}
  sought = {field: places[split:].reshape(shapes[1])}
  return dataclasses.replace(
    batch,
    history=dataclasses.replace(history, ids={**history.ids, **own}),
    targets=dataclasses.replace(targets, ids={**targets.ids, **sought}),
    rows={**batch.rows, field: rows},
  )
