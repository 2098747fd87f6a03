"""From the host's batches to batches on the mesh, ahead of the step."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from dare_jax import types
from dare_jax.data import compact
from dare_jax.data import pipeline
from dare_jax.data import prefetcher
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.parallel import processes


@dataclasses.dataclass(frozen=True)
class Fed:
  """A batch on the mesh.

  Attributes:
    batch: of all processes.
    targets: real ones in it.
    extra: what its maker gave along with this process's part.
  """

  batch: types.Batch
  targets: int
  extra: Any


class Placer:
  """Finds the rows of batches and puts them on the mesh."""

  def __init__(
    self, mesh: jax.sharding.Mesh, vocab_sizes: Mapping[str, int]
  ) -> None:
    """Makes a placer.

    Args:
      mesh: of all devices.
      vocab_sizes: as `compact.Compactor`.
    """
    self._mesh = mesh
    local = len(mesh.local_devices)
    self.compact = compact.Compactor(vocab_sizes, local)

  def place(self, batch: types.Batch, extra: Any) -> Fed:
    """Returns a batch on the mesh, with the room that all processes need.

    Args:
      batch: this process's part, with the rows that `compact` found.
      extra: goes along.
    """
    targets = int(batch.targets.weight.sum())
    told = processes.gather(np.append(self.compact.rooms(batch), targets))
    batch = self.compact.widen(batch, told[:, :-1].max(axis=0))
    return Fed(mesh_lib.place(self._mesh, batch), int(told[:, -1].sum()), extra)


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
      make: returns this process's part of a batch, and what goes along; or
        None after the last one.
      start: the first number to make.
      ahead: batches to make ahead.
    """
    self._placer = placer

    def prepare(number: int) -> tuple[types.Batch, Any] | None:
      made = make(number)
      return None if made is None else (placer.compact(made[0]), made[1])

    self._prefetcher = prefetcher.Prefetcher(prepare, start, ahead)

  def next(self) -> Fed | None:
    """Returns the next batch; None after the last one."""
    made = self._prefetcher.next()
    return None if made is None else self._placer.place(*made)

  def __enter__(self) -> Feed:
    return self

  def __exit__(self, *unused: Any) -> None:
    self._prefetcher.close()


def share_of(mesh: jax.sharding.Mesh) -> pipeline.Share:
  """Returns which part of each batch this process makes."""
  return pipeline.Share(jax.process_index(), jax.process_count(), mesh.size)
