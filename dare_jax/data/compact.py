"""The rows that a batch reads: found on the host, ahead of the step.

A batch of 10^5 ids reads some 10^4 rows of a table of 10^7. Training gathers
these into a small table, and the batch's ids point into that one.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

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
    history, targets = dict(batch.history.ids), dict(batch.targets.ids)
    rows = {}
    for field, place in self._place.items():
      ids = np.concatenate([history[field].ravel(), targets[field].ravel()])
      rows[field], compact = _distinct(ids, place)
      split = history[field].size
      history[field] = compact[:split].reshape(history[field].shape)
      targets[field] = compact[split:].reshape(targets[field].shape)
    return dataclasses.replace(
      batch,
      history=dataclasses.replace(batch.history, ids=history),
      targets=dataclasses.replace(batch.targets, ids=targets),
      rows=rows,
    )


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
