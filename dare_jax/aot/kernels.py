"""Compiles the search over cached keys for TPUs, without one.

For each form, the kernel and XLA's own matmul and top-k: what does it hold and
move? The compiler for TPUs tells: it comes with the extra `tpu-aot` and needs
no TPU. Nothing is run.

    python -m dare_jax.bench kernels --topology=v5e:2x4 --candidates=1,128
"""

from __future__ import annotations

from collections.abc import Callable
import itertools
import re
import time
from typing import Any

from absl import flags

from dare_jax import errors
from dare_jax.aot import pod

_FORMS = {'kernel': 'tpu', 'xla': 'plain'}
_DTYPES = ('float32', 'bfloat16', 'int8')


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  topology = flags.DEFINE_list(
    'topology', ['v5e:2x4'], 'TPU slices, such as v5e:2x4, v6e:2x4, v5p:2x2x2.'
  )
  form = flags.DEFINE_list(
    'form', list(_FORMS), f'Of {", ".join(_FORMS)}, which to compile.'
  )
  dtype = flags.DEFINE_list(
    'dtype', ['float32'], f'Of the keys, of {", ".join(_DTYPES)}.'
  )
  sizes = {
    'length': flags.DEFINE_list('length', ['50000'], 'Behaviors.'),
    'candidates': flags.DEFINE_list('candidates', ['128'], 'Targets.'),
    'dim': flags.DEFINE_list('dim', ['32'], 'Width of a key.'),
    'top_k': flags.DEFINE_list('top_k', ['20'], 'Behaviors kept.'),
    'histories': flags.DEFINE_list('histories', ['8'], 'Of each chip.'),
  }

  def measure() -> list[dict[str, Any]]:
    _expect('form', form.value, _FORMS)
    _expect('dtype', dtype.value, _DTYPES)
    numbers = {name: _numbers(name, flag.value) for name, flag in sizes.items()}
    points = [
      dict(zip(numbers, values, strict=True))
      for values in itertools.product(*numbers.values())
    ]
    return [
      measure_one(slice_name, kind, key_dtype, **point)
      for slice_name in topology.value
      for key_dtype in dtype.value
      for point in points
      for kind in form.value
    ]

  return measure


def _expect(name: str, values: list[str], known: Any) -> None:
  for value in values:
    if value not in known:
      raise errors.UsageError(
        f'--{name}={value}: expected some of {", ".join(known)}.'
      )


def _numbers(name: str, values: list[str]) -> list[int]:
  try:
    numbers = [int(value) for value in values]
  except ValueError:
    numbers = [0]
  if min(numbers, default=0) < 1:
    raise errors.UsageError(
      f'--{name}={",".join(values)}: expected whole numbers from 1.'
    )
  return numbers


def measure_one(
  topology: str,
  form: str,
  dtype: str,
  length: int,
  candidates: int,
  dim: int,
  top_k: int,
  histories: int,
) -> dict[str, Any]:
  """Returns what the compiler says of one form, a chip of the slice each."""
  devices = pod.devices_of(topology)
  import jax
  import jax.numpy as jnp
  import numpy as np

  from dare_jax.serving import kernels
  from dare_jax.serving.kernels import tpu

  axis = jax.sharding.PartitionSpec('histories')
  mesh = jax.sharding.Mesh(np.array(devices), ('histories',))
  split = jax.sharding.NamedSharding(mesh, axis)

  def find(queries: Any, keys: Any, bias: Any, visible: Any, scale: Any) -> Any:
    return kernels.find(
      queries, keys, bias, visible, top_k, scale, _FORMS[form]
    )

  b = histories * mesh.size

  def operand(shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct((b, *shape), dtype, sharding=split)

  row = operand((length,))
  operands = (
    operand((candidates, dim)),
    operand((length, dim), dtype),
    row,
    operand((length,), bool),
    row if dtype == 'int8' else None,
  )
  begin = time.perf_counter()
  compiled = (
    jax.jit(
      jax.shard_map(
        find, mesh=mesh, in_specs=axis, out_specs=axis, check_vma=False
      )
    )
    .lower(*operands)
    .compile()
  )
  seconds = time.perf_counter() - begin
  memory: Any = compiled.memory_analysis()
  cost: Any = compiled.cost_analysis()
  text = compiled.as_text() or ''
  moved = cost.get('bytes accessed', 0)
  if form == 'kernel':
    moved = tpu.bytes_moved(histories, candidates, length, dim, dtype, top_k)
  return {
    'topology': topology,
    'form': form,
    'dtype': dtype,
    'length': length,
    'candidates': candidates,
    'dim': dim,
    'top_k': top_k,
    'histories': histories,
    'arguments_mb': memory.argument_size_in_bytes / 1e6,
    'temporary_mb': memory.temp_size_in_bytes / 1e6,
    'moved_mb': moved / 1e6,
    'sorts': len(re.findall(r' sort\(', text)),
    'compile_s': seconds,
  }
