"""Compiles the training step for a pod of TPUs or of GPUs, without one.

Does the model fit, what does a step send, and how long does the compiler think
that it takes? The compiler for TPUs tells, or that for GPUs: they come with the
extras `tpu-aot` and `gpu-aot` and need no such device. Nothing is run: tables
of any size take no memory here.

    python -m dare_jax.bench pod --topology=v5e:16x16 --rows=1000000000
    python -m dare_jax.bench pod --topology=h100:1x1x8,h100:1x32x8

`--topology=cpu:8` compiles for eight devices made of this machine's CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
import os
import pathlib
import re
import time
from typing import Any

from absl import flags
import ml_collections

from dare_jax import config_flag
from dare_jax import errors
from dare_jax import plots
from dare_jax.aot import gpu
from dare_jax.aot import scaling_figure

_CATEGORIES = 10_000
# GiB of memory of a chip, from the pages of cloud.google.com/tpu/docs.
_MEMORY_GIB = {
  'TPU v4': 32,
  'TPU v5 lite': 16,
  'TPU v5': 95,
  'TPU v6 lite': 32,
}
_FULL = re.compile(r'(?:Used |memory required for .*?\()([\d.]+)([KMGT])')
_UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = config_flag.define()
  topology = flags.DEFINE_list(
    'topology',
    ['v5e:2x4'],
    'TPU slices, such as v5e:16x16, v6e:2x4, v5p:2x2x2; GPUs of h100, h200,'
    ' a100 or b200, such as h100:1x32x8: 32 hosts of 8; or cpu:8.',
  )
  rows = flags.DEFINE_list('rows', ['1000000'], 'Rows of the item tables.')
  windows = flags.DEFINE_integer(
    'windows', 64, 'Windows of histories on each chip.', lower_bound=1
  )
  distinct = flags.DEFINE_float(
    'distinct', 0.5, 'Of the items that a chip reads, the distinct share.'
  )

  figure = flags.DEFINE_string(
    'figure', None, 'Draw memory and bytes of a chip here, as PNG.'
  )
  parts = flags.DEFINE_bool(
    'parts', False, 'Of TPUs: a row for each part of the model, what it takes.'
  )

  def measure() -> list[dict[str, Any]]:
    """Returns a row for each slice and number of rows."""
    if figure.value:
      plots.require('--figure')
    if parts.value:
      check_parts(topology.value)
    make_cpu_devices(topology.value)
    found = [
      measure_one(config.value, name, int(size), windows.value, distinct.value)
      for name in topology.value
      for size in rows.value
    ]
    of_parts = [row.pop('parts') for row in found]
    if figure.value:
      scaling_figure.draw(found, pathlib.Path(figure.value))
    if parts.value:
      return [
        {name: row[name] for name in ('topology', 'rows', 'compiler')} | part
        for row, those in zip(found, of_parts, strict=True)
        for part in those
      ]
    return found

  return measure


def check_parts(topologies: list[str]) -> None:
  """Checks that parts can be told of programs for these.

  Raises:
    UsageError: one is not for TPUs.
  """
  for name in topologies:
    if name.startswith('cpu:') or gpu.card_of(name):
      raise errors.UsageError(
        f'--topology={name}: --parts reads programs for TPUs, such as those of'
        ' v5e:2x4; leave out one of the two.'
      )


def make_cpu_devices(topologies: list[str]) -> None:
  """Prepares the CPU to be as many devices as any topology asks for.

  Raises:
    UsageError: not a number of devices.
  """
  counts = []
  for name in topologies:
    kind, _, count = name.partition(':')
    if kind == 'cpu':
      if not count.isdecimal() or int(count) < 1:
        raise errors.UsageError(f'--topology={name}: expected such as cpu:8.')
      counts.append(int(count))
  if counts:
    import jax

    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', max(counts))


def devices_of(topology: str) -> list[Any]:
  """Returns abstract chips of a TPU slice, or GPUs, or devices of this CPU.

  Args:
    topology: such as v5e:4x4, h100:1x1x8 or cpu:8.

  Raises:
    UsageError: no compiler for them, or no such slice.
  """
  import jax
  from jax.experimental import topologies

  if topology.startswith('cpu:'):
    return jax.devices('cpu')[: int(topology.removeprefix('cpu:'))]
  if gpu.card_of(topology):
    return gpu.devices_of(topology)
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'none')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # No TPU is opened.
  jax.config.update('jax_platforms', 'cpu')
  try:
    found = topologies.get_topology_desc(platform='tpu', topology_name=topology)
  except Exception as error:  # Whatever the plugin raises.
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise errors.UsageError(
      f'--topology={topology}: {reason}. It needs the compiler for TPUs'
      f' ({errors.install("tpu-aot")}) and a name such as v5e:2x4; GPUs are'
      f' {", ".join(gpu.CARDS)}, as in h100:1x1x8.'
    ) from None
  return list(found.devices)


def measure_one(
  config: ml_collections.ConfigDict,
  topology: str,
  num_items: int,
  windows: int,
  distinct: float,
) -> dict[str, Any]:
  """Returns what the compiler says of the step of one configuration."""
  devices = devices_of(topology)
  import jax

  from dare_jax.experiments import model_section
  from dare_jax.parallel import mesh as mesh_lib
  from dare_jax.training import options as train_options
  from dare_jax.training import state as train_state

  mesh = mesh_lib.make(devices)
  vocab = {'item': num_items, 'category': _CATEGORIES}
  model = model_section.build(config, vocab)
  trainer = train_state.Trainer(
    model, train_options.of_section(config.optim), 1, mesh
  )
  batch = _batch(config, windows * mesh.size, mesh.size, trainer, distinct)
  split = jax.sharding.NamedSharding(mesh, mesh_lib.SPLIT)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch
  )
  state = trainer.abstract_state(batch)
  begin = time.perf_counter()
  height = max(
    leaf.sharding.shard_shape(leaf.shape)[0]
    for leaf in jax.tree.leaves((state.tables, state.table_slots))
    if leaf.shape and leaf.sharding.spec == mesh_lib.SPLIT
  )
  card = gpu.card_of(topology)
  options = gpu.options(card) if card else None
  told = _compile(
    lambda: trainer.train_step.lower(state, batch).compile(options), height
  )
  seconds = time.perf_counter() - begin
  memory = _MEMORY_GIB.get(devices[0].device_kind, 0) * 2**30 / 1e6
  if card:
    memory = card.memory_bytes / 1e6
  needed = told.pop('needed_mb')
  return {
    'topology': topology,
    'chips': mesh.size,
    'model': config.model.name,
    'rows': num_items,
    'dim': config.model.attention_dim,
    'windows_per_chip': windows,
    'compiler': _compiler(topology),
    'needed_mb': needed,
    'chip_mb': memory or None,
    # What does not fit is refused by the compiler, which sets some aside.
    'fits': told['state_and_batch_mb'] is not None
    and (not memory or needed <= memory),
    **told,
    'compile_s': seconds,
  }


def _compiler(topology: str) -> str:
  """Returns what compiles for a topology, and its version."""
  name = 'jaxlib' if topology.startswith('cpu:') else 'libtpu'
  if gpu.card_of(topology):
    name = 'jax-cuda13-pjrt'
  try:
    return f'{name} {metadata.version(name)}'
  except metadata.PackageNotFoundError:  # Not installed by pip.
    return name


def _compile(make: Callable[[], Any], height: int) -> dict[str, Any]:
  """Returns what a compiled program says of itself; None where it says none.

  A program that the compiler refuses, because the chip's memory is too small,
  says only what it needs.

  Args:
    make: compiles the program and returns it.
    height: number of rows in a chip's part of the item tables.
  """
  told: dict[str, Any] = dict.fromkeys(
    (
      *('needed_mb', 'state_and_batch_mb', 'temporary_mb', 'all_to_all_mb'),
      *('other_collectives_mb', 'table_copies', 'gflop'),
      *('bytes_accessed_mb', 'estimate_ms'),
    )
  )
  told['parts'] = []
  try:
    compiled = make()
  except Exception as error:
    if (full := _FULL.search(str(error))) is None:
      raise
    told['needed_mb'] = float(full[1]) * _UNITS[full[2]] / 1e6
    return told
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  arguments, temporary = (
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes,
  )
  beside = memory.output_size_in_bytes - memory.alias_size_in_bytes
  code = memory.generated_code_size_in_bytes
  estimate = cost.get('optimal_seconds', 0.0)
  if not cost:  # As of GPUs.
    estimate = gpu.estimate_us(compiled.as_text() or '') / 1e6
  return told | {
    'needed_mb': (arguments + temporary + beside + code) / 1e6,
    'state_and_batch_mb': arguments / 1e6,
    'temporary_mb': temporary / 1e6,
    **_read(compiled, height),
    'gflop': cost['flops'] / 1e9 if cost else None,
    'bytes_accessed_mb': cost['bytes accessed'] / 1e6 if cost else None,
    'estimate_ms': estimate * 1e3 if estimate > 0 else None,
  }


def _read(compiled: Any, height: int) -> dict[str, Any]:
  """Returns what the text of a program says, where it can be printed.

  The compiler for TPU v5p fuses exchanges into forms that jaxlib 0.10 cannot.
  """
  import jax

  from dare_jax.aot import shares
  from dare_jax.aot import traffic

  try:
    text = compiled.as_text() or ''
  except jax.errors.JaxRuntimeError:
    return {}
  sent = traffic.collective_bytes(text)
  swapped = sent.get('all-to-all', 0)
  return {
    'all_to_all_mb': swapped / 1e6,
    'other_collectives_mb': (sum(sent.values()) - swapped) / 1e6,
    'table_copies': traffic.count_copies(text, height),
    'parts': shares.of_parts(text),
  }


def _batch(
  config: ml_collections.ConfigDict,
  windows: int,
  chips: int,
  trainer: Any,
  distinct: float,
) -> Any:
  """Returns a batch of shapes alone, with room for the rows of each chip."""
  import jax
  import numpy as np

  from dare_jax import tables as tables_lib
  from dare_jax import types

  moments = config.train.moments_per_window
  candidates = 1 + config.data.num_negatives
  shared = 2 if moments > 1 else 1  # A window has room for moments apart.
  length = shared * config.data.history_length
  ids = jax.ShapeDtypeStruct((windows, length), np.int32)
  target = jax.ShapeDtypeStruct((windows, moments, candidates), np.int32)
  value = jax.ShapeDtypeStruct(target.shape, np.float32)
  end = jax.ShapeDtypeStruct((windows, moments), np.int32)
  read = (windows // chips) * (length + moments * candidates)
  capacities = {
    field: tables_lib.row_capacity(int(min(size, distinct * read)))
    for field, size in trainer.vocab_sizes.items()
  }
  rows = {
    field: jax.ShapeDtypeStruct((chips * capacity,), np.int32)
    for field, capacity in capacities.items()
  }
  fields = ('item', 'category')
  has_times = bool(config.model.real_time)
  return types.Batch(
    history=types.History(
      ids=dict.fromkeys(fields, ids),
      mask=jax.ShapeDtypeStruct(ids.shape, np.bool_),
      time=ids if has_times else None,
    ),
    end=end,
    targets=types.Targets(
      ids=dict.fromkeys(fields, target), label=value, weight=value
    ),
    start=end if moments > 1 else None,
    rows=rows,
    now=end if has_times else None,
  )
