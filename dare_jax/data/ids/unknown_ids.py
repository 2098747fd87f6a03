"""Batches with the unknown id where training has nothing else to read.

An id that training never reads has a row that no step moves. Wherever it comes
up, in a history or a target, the unknown id stands for it, as a server would
have it. For that the unknown rows are trained: a small random share of the ids
in training batches becomes unknown, in each field apart.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from dare_jax import types
from dare_jax.data import counter_rng
from dare_jax.logs import id_map


@dataclasses.dataclass(frozen=True)
class Places:
  """What names the examples of a batch in the streams of draws.

  Attributes:
    index: int64 [b], number of each example in the split.
    epoch: int64 [b], epoch of each example.
    row: int64 [b, m], numbers of the moments, or of single targets, in the
      split.
  """

  index: np.ndarray
  epoch: np.ndarray
  row: np.ndarray


class UnknownIds:
  """Gives batches the unknown id in place of others."""

  def __init__(
    self,
    fields: tuple[str, ...],
    known: Mapping[str, np.ndarray],
    rate: float,
    seed: int,
  ) -> None:
    """Makes the replacement of ids.

    Args:
      fields: names of the fields, the field of items first.
      known: field -> bool [ids], whether training reads an id; all ids of a
        field that is left out are known.
      rate: share of all ids that become unknown at random, besides those that
        training does not read.
      seed: seed of the ids that become unknown.
    """
    self._known = {k: v for k, v in known.items() if not v.all()}
    self._rate = rate
    base = seed * 8 + counter_rng.UNKNOWN
    self._streams = {
      field: counter_rng.bits(base, number).view(np.int64) if number else base
      for number, field in enumerate(fields)
    }

  def __call__(self, batch: types.Batch, places: Places) -> types.Batch:
    """Returns the batch as a model is to read it; its arrays stay as they are.

    Args:
      batch: a batch on the host, with the ids of the store.
      places: epoch and number of each example of the batch.
    """
    batch = batch_as_known(batch, self._known)
    if self._rate == 0:
      return batch
    history = {
      field: self._replaced_in_history(field, ids, batch.history.mask, places)
      for field, ids in batch.history.ids.items()
    }
    targets, context = (
      {field: self._replaced(field, ids, places) for field, ids in part.items()}
      for part in (batch.targets.ids, batch.context)
    )
    return _with_ids(batch, history, targets, context)

  def _replaced_in_history(
    self, field: str, ids: np.ndarray, mask: np.ndarray, places: Places
  ) -> np.ndarray:
    """Returns histories [b, l], a share of them made unknown.

    Few draws for each row, on slots with replacement: there are too many
    behaviors to draw for each of them.
    """
    stream: Any = self._streams[field]
    epoch, index, length = places.epoch, places.index, ids.shape[1]
    count = self._rate * length + counter_rng.uniform(stream, epoch, index)
    count = np.floor(count).astype(int)
    ids = ids.copy()
    for number in range(int(count.max(initial=0))):
      row = np.flatnonzero(count > number)
      slot = counter_rng.below(length, stream, epoch[row], index[row], number)
      hit = mask[row, slot]
      ids[row[hit], slot[hit]] = id_map.UNKNOWN
    return ids

  def _replaced(
    self, field: str, ids: np.ndarray, places: Places
  ) -> np.ndarray:
    """Returns targets [b, m, c], or context [b, m], a share made unknown."""
    flat = ids.reshape(*places.row.shape, -1)
    slot = -1 - np.arange(flat.shape[-1])
    chance = counter_rng.uniform(
      self._streams[field],
      places.epoch[:, None, None],
      places.row[:, :, None],
      slot,
    )
    unknown = (chance < self._rate) & (flat != id_map.PADDING)
    return np.where(unknown, id_map.UNKNOWN, flat).reshape(ids.shape)


def batch_as_known(
  batch: types.Batch, known: Mapping[str, np.ndarray]
) -> types.Batch:
  """Returns a batch with the unknown id in place of those not known.

  Args:
    batch: a batch on the host; its arrays are not changed.
    known: field -> bool [ids], whether an id is known; a field that is not in
      the map has known ids only.
  """
  parts = (
    {field: as_known(ids, known.get(field)) for field, ids in part.items()}
    for part in (batch.history.ids, batch.targets.ids, batch.context)
  )
  return _with_ids(batch, *parts)


def _with_ids(
  batch: types.Batch,
  history: Mapping[str, np.ndarray],
  targets: Mapping[str, np.ndarray],
  context: Mapping[str, np.ndarray],
) -> types.Batch:
  return dataclasses.replace(
    batch,
    history=dataclasses.replace(batch.history, ids=history),
    targets=dataclasses.replace(batch.targets, ids=targets),
    context=context,
  )


def as_known(ids: np.ndarray, known: np.ndarray | None) -> np.ndarray:
  """Returns ids with the unknown id in place of those that are not known.

  >>> as_known(np.array([0, 2, 3]), np.array([True, True, False, True]))
  array([0, 1, 3])

  Args:
    ids: int, ids of any shape.
    known: bool [ids], whether an id is known; None: all are.
  """
  if known is None:
    return ids
  ids = ids.copy()
  ids[~known.take(ids)] = id_map.UNKNOWN
  return ids
