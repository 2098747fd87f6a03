"""What a run will hold in memory, told, and checked, before it is allocated."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from dare_jax import errors
from dare_jax import tables as tables_lib
from dare_jax import types
from dare_jax.training import saved_form
from dare_jax.training import state as train_state
from dare_jax.training import state_parts

# Besides those that wait: one being made, one in use, one just used.
_MORE_BATCHES = 3
_SHOWN = 50_000  # Bytes: less is 0.0 MB.


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
  """Bytes on each device.

  Attributes:
    parts: what the memory holds, in words -> its bytes on each device.
    limit: number of bytes that there are; None if the device does not tell.
    devices: how many of this process share them: all, on CPUs.
    kind: the platform of the devices: cpu, gpu or tpu.
  """

  parts: Mapping[str, int]
  limit: int | None
  devices: int
  kind: str

  @property
  def total(self) -> int:
    """Bytes on all devices that share the limit."""
    return self.devices * sum(self.parts.values())

  def check(self) -> None:
    """Raises UsageError if it does not fit."""
    if self.limit is None or self.total <= self.limit:
      return
    largest = sorted(self.parts, key=lambda name: -self.parts[name])[:2]
    main = ', '.join(f'{name} {_text(self.parts[name])}' for name in largest)
    where = f'a {self.kind} device' if self.devices == 1 else 'its devices'
    raise errors.UsageError(
      f'training needs {_text(self.total)} of memory on {where} ({main}), but'
      f' there are {_text(self.limit)}; use more devices, smaller'
      ' model.attention_dim and model.representation_dim, a higher'
      ' data.min_item_count, or optim.tables=row_adagrad, whose slots are one'
      ' number a row.'
    )

  def __str__(self) -> str:
    there = '' if self.limit is None else f' of {_text(self.limit)}'
    devices = f'{self.devices} {self.kind} devices, each'
    where = devices if self.devices > 1 else f'the {self.kind} device'
    by_size = sorted(self.parts.items(), key=lambda part: -part[1])
    parts = ', '.join(
      f'{name} {_text(size)}' for name, size in by_size if size >= _SHOWN
    )
    return f'{_text(self.total)}{there} on {where}: {parts}'


def of_state(state: train_state.TrainState) -> MemoryPlan:
  """Returns what a state takes, which is nearly all.

  Args:
    state: shapes, dtypes and shardings.
  """
  sharding: Any = state.step.sharding
  device: Any = next(iter(sharding.addressable_devices))
  is_cpu = device.platform == 'cpu'
  whole = _bytes(state)
  given = _bytes(state_parts.given_tables(state))
  unsaved = given + _bytes(state_parts.members(state))
  tables, slots = _bytes(state.tables) + given, _bytes(state.table_slots)
  is_joined = saved_form.is_joined(state)
  parts = {
    'tables and their slots' if is_joined else 'tables': tables,
    'optimizer slots': slots,
    'heads and other state': whole - tables - slots,
  }
  if is_cpu:  # Elsewhere it is not in the device's memory.
    copies = 2 if is_joined else 1  # Of the other form, then the writer's own.
    parts['copy while a checkpoint is written'] = copies * (whole - unsaved)
  limit = available() if is_cpu else _device_limit(device)
  devices = jax.local_device_count() if is_cpu else 1
  return MemoryPlan(parts, limit, devices, device.platform)


def of_step(
  state: train_state.TrainState,
  batch: types.Batch,
  program: Any,
  tables: tables_lib.TableSet,
  prefetch: int,
) -> MemoryPlan:
  """Returns what training takes.

  Args:
    state: shapes, dtypes and shardings of the training state.
    batch: a batch on the mesh, with the rows that it reads; or its shapes.
    program: the step, compiled for it.
    tables: the set of the model's embedding tables.
    prefetch: number of batches that are made ahead.
  """
  plan = of_state(state)
  analysis = program.memory_analysis()
  temporary = 0 if analysis is None else analysis.temp_size_in_bytes
  compact = 2 * tables.gathered_bytes(
    {field: _shard(rows)[0] for field, rows in batch.rows.items()}
  )
  compact = min(compact, temporary)
  more = {
    "a batch's table rows and gradients": compact,
    'activations and other temporaries': temporary - compact,
    'batches': (prefetch + _MORE_BATCHES) * _bytes(batch),
  }
  if plan.kind == 'cpu' and batch.rows:
    rows = sum(tables.vocab_sizes.values())
    more['positions of table rows'] = 4 * rows // plan.devices
  return dataclasses.replace(plan, parts={**plan.parts, **more})


def _shard(leaf: Any) -> tuple[int, ...]:
  return leaf.sharding.shard_shape(leaf.shape)


def _bytes(tree: Any) -> int:
  """Returns the bytes that a tree takes on each device."""
  return sum(
    int(np.prod(_shard(leaf), dtype=object)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _text(size: int) -> str:
  return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.1f} MB'


def _device_limit(device: Any) -> int | None:
  return (device.memory_stats() or {}).get('bytes_limit')


def available() -> int | None:
  """Returns the bytes that this process may still take; None if unknown."""
  found = []
  try:
    lines = pathlib.Path('/proc/meminfo').read_text().split('\n')
    sizes = dict(line.split(':', 1) for line in lines if ':' in line)
    found.append(int(sizes['MemAvailable'].split()[0]) * 1024)
  except (OSError, KeyError, ValueError):
    pass
  for most, used in (
    ('memory.max', 'memory.current'),
    ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes'),
  ):
    group = pathlib.Path('/sys/fs/cgroup')
    try:
      limit = int((group / most).read_text())
      found.append(limit - int((group / used).read_text()))
    except (OSError, ValueError):  # No such group, or its limit is `max`.
      pass
  return min(found, default=None)
