"""The table rows that a `Batch` reads: found on the host, or in the step."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from dare_jax import tables as tables_lib
from dare_jax import types


class BatchRows:
  """Gives batches ids into the rows that they read, ahead of the step.

  Not for two threads at once.
  """

  def __init__(self, vocab_sizes: Mapping[str, int], devices: int = 1) -> None:
    """Makes a finder of rows.

    Args:
      vocab_sizes: field -> table rows, of the fields whose rows are found;
        without fields, batches stay as they are.
      devices: number of devices of this process; a batch's windows are split
        evenly over them.
    """
    self._fields = tuple(vocab_sizes)
    self._finder = tables_lib.RowFinder(vocab_sizes, devices)

  def __call__(self, batch: types.Batch) -> types.Batch:
    """Returns the batch with `rows` and ids that point into them.

    Raises:
      IndexError: an id lies beyond its table.
    """
    return _with_rows(batch, self._finder(_ids(batch, self._fields)))

  def capacities(self, batch: types.Batch) -> np.ndarray:
    """Returns the row capacity of each device, int64, one for each field."""
    return self._finder.capacities(batch.rows)

  def widen(self, batch: types.Batch, capacities: np.ndarray) -> types.Batch:
    """Returns the batch with the given row capacity on each device.

    Args:
      batch: a batch with `rows`.
      capacities: int [fields], the row capacity that each field shall have; not
        less than it has.
    """
    rows = self._finder.widen(batch.rows, capacities)
    return dataclasses.replace(batch, rows={**batch.rows, **rows})


def find(batch: types.Batch, vocab_sizes: Mapping[str, int]) -> types.Batch:
  """Returns the batch with rows for each field that needs them.

  For use inside the step. Where `batch.rows` has a field, the host has found
  them ahead of it.

  Args:
    batch: this device's part.
    vocab_sizes: field -> table rows, of the fields whose rows are found.
  """
  sizes = {f: size for f, size in vocab_sizes.items() if f not in batch.rows}
  found = tables_lib.find_rows(_ids(batch, sizes), sizes)
  return _with_rows(batch, found)


def _ids(batch: types.Batch, fields: Any) -> dict[str, Any]:
  """Returns field -> the ids of the history and of the targets."""
  return {
    field: (batch.history.ids[field], batch.targets.ids[field])
    for field in fields
  }


def _with_rows(batch: types.Batch, found: tables_lib.UniqueRows) -> types.Batch:
  """Returns the batch with the rows found, and ids that point into them."""
  history, targets = (
    {field: pair[part] for field, pair in found.ids.items()} for part in (0, 1)
  )
  return dataclasses.replace(
    batch,
    history=dataclasses.replace(
      batch.history, ids={**batch.history.ids, **history}
    ),
    targets=dataclasses.replace(
      batch.targets, ids={**batch.targets.ids, **targets}
    ),
    rows={**batch.rows, **found.rows},
  )
