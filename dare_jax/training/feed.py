"""From the host's batches to batches on the mesh, ahead of the step."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from dare_jax import errors
from dare_jax import types
from dare_jax.data import pipeline
from dare_jax.data import prefetcher
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.parallel import processes
from dare_jax.training import batch_rows


@dataclasses.dataclass(frozen=True)
class Fed:
  """A batch on the mesh.

  Attributes:
    batch: the arrays of all processes, split over the devices of the mesh.
    targets: number of targets in the batch that are no padding.
    extra: what `make` of the `Feed` returned beside this process's part of the
      batch, unchanged.
  """

  batch: types.Batch
  targets: int
  extra: Any


class Placer:
  """Finds the rows of batches and puts them on the mesh."""

  def __init__(
    self,
    mesh: jax.sharding.Mesh,
    vocab_sizes: Mapping[str, int],
    only_wider: bool = False,
  ) -> None:
    """Makes a placer.

    Args:
      mesh: the mesh of all devices.
      vocab_sizes: field -> rows of its tables, of the fields whose table rows
        the host finds for each batch.
      only_wider: whether a batch has at least the row capacities of the batch
        before it, so that fewer programs are compiled. They then depend on
        where a stream begins: for evaluation, not for training, which is
        resumed anywhere.
    """
    self._mesh = mesh
    self._fields = len(vocab_sizes)
    local = len(mesh.local_devices)
    self.rows = batch_rows.BatchRows(vocab_sizes, local)
    self._least = np.zeros(len(vocab_sizes), np.int64) if only_wider else None

  def place(self, batch: types.Batch, extra: Any) -> Fed:
    """Returns a batch on the mesh, with the row capacity that all need.

    Args:
      batch: this process's part, with the rows that `rows` found.
      extra: anything; it becomes `Fed.extra`.

    Raises:
      UsageError: another process called `refuse`.
    """
    targets = int(batch.targets.weight.sum())
    told = self._told(np.append(self.rows.capacities(batch), targets))
    capacities = told[:, :-1].max(axis=0)
    if self._least is not None:
      capacities = self._least = np.maximum(capacities, self._least)
    batch = self.rows.widen(batch, capacities)
    return Fed(mesh_lib.place(self._mesh, batch), int(told[:, -1].sum()), extra)

  def refuse(self, reason: str) -> None:
    """Raises UsageError here and on all that place a batch meanwhile."""
    self._told(np.full(self._fields + 1, -1, np.int64), reason)

  def _told(self, numbers: np.ndarray, reason: str = '') -> np.ndarray:
    """Returns the numbers that all processes have told."""
    told = processes.gather(numbers)
    if told.min() < 0:
      raise errors.UsageError(processes.first_text(reason))
    return told


class Feed:
  """Batches 0, 1, 2, .. on the mesh; a thread makes them ahead of use."""

  def __init__(
    self,
    placer: Placer,
    make: Callable[[int], tuple[types.Batch, Any] | None],
    start: int,
    ahead: int,
  ) -> None:
    """Starts the thread.

    Args:
      placer: puts batches on the mesh; not for two feeds at once.
      make: returns, for the number of a batch, this process's part of it and
        anything that is wanted beside it (`Fed.extra`); or None after the last
        batch.
      start: the first number to make.
      ahead: batches to make ahead.
    """
    self._placer = placer

    def prepare(number: int) -> tuple[types.Batch, Any] | None:
      made = make(number)
      return None if made is None else (placer.rows(made[0]), made[1])

    self._prefetcher = prefetcher.Prefetcher(prepare, start, ahead)

  def next(self) -> Fed | None:
    """Returns the next batch; None after the last one.

    Raises:
      UsageError: on all processes, if one of them cannot make its part.
    """
    try:
      made = self._prefetcher.next()
    except errors.UsageError as error:
      self._placer.refuse(str(error))
      raise
    return None if made is None else self._placer.place(*made)

  def __enter__(self) -> Feed:
    return self

  def __exit__(self, *unused: Any) -> None:
    self._prefetcher.close()


def share_of(mesh: jax.sharding.Mesh) -> pipeline.Share:
  """Returns which part of each batch this process makes."""
  return pipeline.Share(jax.process_index(), jax.process_count(), mesh.size)
