"""The rows that a batch reads, found on the host or on the device.

A batch of 10^5 ids reads some 10^4 rows of a table of 10^7. Training gathers
these into a small table, and the batch's ids point into that one.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import jax.numpy as jnp
import numpy as np

from dare_jax import types

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
  """Gives a batch ids into the rows that it reads.

  Not for two threads at once: it keeps an int32 for each row of each table, so
  that finding the distinct ids takes no sort and no pass over the rows.
  """

  def __init__(self, vocab_sizes: Mapping[str, int]) -> None:
    """Makes a compactor.

    Args:
      vocab_sizes: rows of the tables of each field to compact.
    """
    self._place = {
      field: np.empty(size, np.int32) for field, size in vocab_sizes.items()
    }

  def __call__(self, batch: types.Batch) -> types.Batch:
    """Returns the batch with `rows` and ids that point into them.

    Raises:
      IndexError: an id lies beyond its table.
    """
    for field, place in self._place.items():
      rows, places = _distinct(np.concatenate(_ids(batch, field)), place)
      batch = _with_rows(batch, field, rows, places)
    return batch


def _distinct(
  ids: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the distinct ids and 0, padded to a bucket, and each id's place.

  Of each id one occurrence is left standing in `place`; these are the distinct
  ids. What `place` holds elsewhere is never read.
  """
  occurrence = np.arange(len(ids), dtype=np.int32)
  place[ids] = occurrence
  distinct = np.sort(ids[place[ids] == occurrence])
  if not len(distinct) or distinct[0] != 0:
    distinct = np.concatenate([np.zeros(1, distinct.dtype), distinct])
  place[distinct] = np.arange(len(distinct), dtype=np.int32)
  rows = np.empty(bucket(len(distinct)), np.int32)
  rows[: len(distinct)] = distinct
  filling = len(rows) - len(distinct)
  rows[len(distinct) :] = len(place) + np.arange(filling)
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
  room = min(ids.size, size)
  rows, places = jnp.unique(
    ids, size=room, fill_value=size, return_inverse=True
  )
  rows += jnp.where(rows == size, jnp.arange(room, dtype=rows.dtype), 0)
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
