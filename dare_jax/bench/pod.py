"""Compiles the training step for a TPU pod, without one.

Does the model fit, and what does a step send? The compiler for TPUs tells: it
comes with the extra `tpu_aot` and needs no TPU. Nothing is run: tables of any
size take no memory here.

    python -m dare_jax.bench pod --topology=v5e:16x16 --rows=1000000000
"""

from __future__ import annotations

from collections.abc import Callable
import os
import time
from typing import Any

from absl import flags
import ml_collections

from dare_jax import cli
from dare_jax import errors

_CATEGORIES = 10_000


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = cli.define_config()
  topology = flags.DEFINE_list(
    'topology',
    ['v5e:2x4'],
    'TPU slices, such as v5e:16x16, v6e:2x4, v5p:2x2x2.',
  )
  rows = flags.DEFINE_list('rows', ['1000000'], 'Rows of the item tables.')
  windows = flags.DEFINE_integer(
    'windows', 64, 'Windows of histories on each chip.', lower_bound=1
  )
  distinct = flags.DEFINE_float(
    'distinct', 0.5, 'Of the items that a chip reads, the distinct share.'
  )

  def measure() -> list[dict[str, Any]]:
    return [
      measure_one(config.value, name, int(size), windows.value, distinct.value)
      for name in topology.value
      for size in rows.value
    ]

  return measure


def devices_of(topology: str) -> list[Any]:
  """Returns the abstract chips of a TPU slice.

  Raises:
    UsageError: no compiler for TPUs, or no such slice.
  """
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'none')
  import jax
  from jax.experimental import topologies

  jax.config.update('jax_platforms', 'cpu')
  try:
    found = topologies.get_topology_desc(platform='tpu', topology_name=topology)
  except Exception as error:  # Whatever the plugin raises.
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise errors.UsageError(
      f'--topology={topology}: {reason}. It needs the compiler for TPUs'
      " (pip install 'dare_jax[tpu_aot]') and a name such as v5e:2x4."
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

  from dare_jax.parallel import mesh as mesh_lib
  from dare_jax.parallel import traffic
  from dare_jax.training import experiment
  from dare_jax.training import state as train_state

  mesh = mesh_lib.make(devices)
  vocab = {'item': num_items, 'category': _CATEGORIES}
  model = experiment.build_options(config, vocab)
  trainer = train_state.Trainer(model, config.optim, 1, mesh)
  batch = _batch(config, windows * mesh.size, mesh.size, trainer, distinct)
  split = jax.sharding.NamedSharding(mesh, mesh_lib.SPLIT)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch
  )
  begin = time.perf_counter()
  state = trainer.abstract_state(batch)
  compiled = trainer.train_step.lower(state, batch).compile()
  seconds = time.perf_counter() - begin
  memory: Any = compiled.memory_analysis()
  cost: Any = compiled.cost_analysis()
  sent = traffic.collective_bytes(compiled.as_text() or '')
  arguments = memory.argument_size_in_bytes
  return {
    'topology': topology,
    'chips': mesh.size,
    'model': config.model.name,
    'rows': num_items,
    'dim': config.model.attention_dim,
    'windows_per_chip': windows,
    'state_and_batch_mb': arguments / 1e6,
    'temporary_mb': memory.temp_size_in_bytes / 1e6,
    'all_to_all_mb': sent.get('all-to-all', 0) / 1e6,
    'other_collectives_mb': sum(
      size for kind, size in sent.items() if kind != 'all-to-all'
    )
    / 1e6,
    'gflop': cost.get('flops', 0.0) / 1e9,
    'bytes_accessed_mb': cost.get('bytes accessed', 0.0) / 1e6,
    'compile_s': seconds,
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

  from dare_jax import types
  from dare_jax.data import compact

  moments = config.train.moments_per_window
  candidates = 1 + config.data.num_negatives
  shared = 2 if moments > 1 else 1  # A window has room for moments apart.
  length = shared * config.data.history_length
  ids = jax.ShapeDtypeStruct((windows, length), np.int32)
  target = jax.ShapeDtypeStruct((windows, moments, candidates), np.int32)
  value = jax.ShapeDtypeStruct(target.shape, np.float32)
  end = jax.ShapeDtypeStruct((windows, moments), np.int32)
  read = (windows // chips) * (length + moments * candidates)
  rows = {
    field: jax.ShapeDtypeStruct(
      (chips * compact.bucket(int(min(size, distinct * read))),), np.int32
    )
    for field, size in trainer.tables.vocab_sizes.items()
  }
  fields = ('item', 'category')
  return types.Batch(
    history=types.History(
      ids=dict.fromkeys(fields, ids),
      mask=jax.ShapeDtypeStruct(ids.shape, np.bool_),
    ),
    end=end,
    targets=types.Targets(
      ids=dict.fromkeys(fields, target), label=value, weight=value
    ),
    start=end if moments > 1 else None,
    rows=rows,
  )
