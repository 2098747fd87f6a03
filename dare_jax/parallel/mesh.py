"""The mesh, and arrays on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dare_jax import errors

AXIS = 'devices'
SPLIT = jax.sharding.PartitionSpec(AXIS)
WHOLE = jax.sharding.PartitionSpec()
# What is split over a mesh is split into so many parts, 2^10 * 3 * 5, which the
# device counts that occur divide.
PARTS = 15_360


def make(devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
  """Returns the mesh of one axis over devices, by default over all there are.

  Raises:
    UsageError: tables cannot be split evenly over so many.
  """
  devices = jax.devices() if devices is None else devices
  if PARTS % len(devices):
    fitting = max(n for n in range(1, len(devices)) if PARTS % n == 0)
    raise errors.UsageError(
      f'{len(devices)} devices: tables are split into {PARTS} parts, so'
      f' that number must divide them; use {fitting} devices.'
    )
  return jax.sharding.Mesh(np.asarray(devices), (AXIS,))


def shardings(mesh: jax.sharding.Mesh, specs: Any) -> Any:
  """Returns the sharding of each partition spec of a tree."""
  return jax.tree.map(
    lambda spec: jax.sharding.NamedSharding(mesh, spec),
    specs,
    is_leaf=lambda node: isinstance(node, jax.sharding.PartitionSpec),
  )


def place(mesh: jax.sharding.Mesh, batch: Any) -> Any:
  """Returns host arrays, each a process's rows, as one array over the mesh.

  Args:
    mesh: the devices of all processes, those of each process side by side.
    batch: a tree of NumPy arrays; the first axis is split over the devices of
      this process.
  """
  sharding = jax.sharding.NamedSharding(mesh, SPLIT)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    batch,
  )


def local_rows(array: jax.Array) -> np.ndarray:
  """Returns this process's rows of an array that `place` could have made."""
  if array.is_fully_addressable:
    return np.asarray(array)
  shards = {s.index[0].start or 0: s.data for s in array.addressable_shards}
  return np.concatenate([np.asarray(shards[key]) for key in sorted(shards)])
