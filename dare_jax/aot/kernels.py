"""Compiles the search over cached keys for TPUs or GPUs, without one.

For each form, the kernel and XLA's own matmul and top-k: what does it hold and
move? The compiler for TPUs tells, or that for GPUs: they come with the extras
`tpu-aot` and `gpu-aot` and need no such device. Nothing is run. Of kernels for
TPUs, bundles of the compiler's schedule are told; of those for GPUs, registers
and spills, where CUDA's `ptxas` is installed.

    python -m dare_jax.bench kernels --topology=v5e:2x4 --candidates=1,128
    python -m dare_jax.bench kernels --topology=h100:1x1x1
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import itertools
import pathlib
import re
import tempfile
import time
from typing import Any

from absl import flags

from dare_jax import errors
from dare_jax.aot import bundles
from dare_jax.aot import gpu
from dare_jax.aot import pod
from dare_jax.aot import ptx

_FORMS = ('kernel', 'xla')
_DTYPES = ('float32', 'bfloat16', 'int8')


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  topology = flags.DEFINE_list(
    'topology',
    ['v5e:2x4'],
    'TPU slices, such as v5e:2x4, v6e:2x4, v5p:2x2x2; or GPUs, h100:1x1x1.',
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
    """Returns a row for each size, after checking the flags."""
    _expect('form', form.value, _FORMS)
    _expect('dtype', dtype.value, _DTYPES)
    numbers = {name: _numbers(name, flag.value) for name, flag in sizes.items()}
    points = [
      dict(zip(numbers, values, strict=True))
      for values in itertools.product(*numbers.values())
    ]
    with tempfile.TemporaryDirectory() as folder:
      bundles.ask(pathlib.Path(folder))
      return [
        measure_one(slice_name, kind, key_dtype, pathlib.Path(folder), **point)
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
  topology: str, form: str, dtype: str, folder: pathlib.Path, **point: int
) -> dict[str, Any]:
  """Returns what the compiler says of one form, a chip of the slice each.

  Args:
    topology: the slice, such as 'v5e:2x4'.
    form: one of `kernel` and `xla`.
    dtype: of the keys.
    folder: into which the compiler for TPUs was asked to write schedules.
    **point: `length`, `candidates`, `dim`, `top_k` and `histories` of a chip.
  """
  devices = pod.devices_of(topology)
  import jax

  mesh = jax.make_mesh((len(devices),), ('histories',), devices=devices)
  begin = time.perf_counter()
  with tempfile.TemporaryDirectory() as dumped:
    lowered, state = _lower(mesh, _backend(topology, form), dtype, **point)
    card = gpu.card_of(topology)
    options = {'xla_dump_to': dumped, **gpu.options(card)} if card else None
    compiled = lowered.compile(options)
    seconds = time.perf_counter() - begin
    registers, spilled = ptx.registers_and_spills(
      pathlib.Path(dumped), 'search_'
    )
  memory: Any = compiled.memory_analysis()
  text = compiled.as_text() or ''
  return {
    'topology': topology,
    'form': form,
    'dtype': dtype,
    **point,
    'arguments_mb': memory.argument_size_in_bytes / 1e6,
    'temporary_mb': memory.temp_size_in_bytes / 1e6,
    'moved_mb': _moved(compiled, text, card, form, state, point) / 1e6,
    # Of GPUs, by XLA's own model, which does not know the kernel.
    'estimate_us': (form == 'xla' and gpu.estimate_us(text)) or None,
    'bundles': bundles.count(folder, 'search_top_k'),
    'registers': registers,
    'spill_bytes': spilled,
    'sorts': len(re.findall(r' sort\(', text)),
    'compile_s': seconds,
  }


def _moved(
  compiled: Any,
  text: str,
  card: gpu.Card | None,
  form: str,
  state: Any,
  point: dict[str, int],
) -> float:
  """Returns the bytes that a search reads and writes.

  The compiler for TPUs tells of plain operations; kernels are counted by hand.
  That for GPUs tells nothing: arguments are read once, and what an operation
  writes is read once, be it the kernel or another.
  """
  if card:
    arguments: Any = compiled.memory_analysis().argument_size_in_bytes
    return arguments + 2 * gpu.passed_on(text)
  if form == 'xla':
    return compiled.cost_analysis()['bytes accessed']
  from dare_jax.serving.kernels import tpu

  return tpu.bytes_moved(
    point['histories'],
    point['candidates'],
    point['length'],
    state.keys,
    point['top_k'],
  )


def _backend(topology: str, form: str) -> str | None:
  """Returns the means by which a topology searches in some form."""
  if form == 'xla':
    return 'plain'
  # None: what TPUs take unasked.
  return 'gpu' if gpu.card_of(topology) else None


def _lower(
  mesh: Any,
  backend: str | None,
  dtype: str,
  length: int,
  candidates: int,
  dim: int,
  top_k: int,
  histories: int,
) -> tuple[Any, Any]:
  """Returns the search of all chips, to compile, and the state it takes."""
  import jax
  import jax.numpy as jnp

  from dare_jax.serving import user_state

  split = jax.sharding.PartitionSpec('histories')
  sharding = jax.sharding.NamedSharding(mesh, split)
  users = histories * mesh.size

  def struct(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  build = functools.partial(user_state.build, precision=dtype)
  mask = struct(users, length, dtype=bool)
  state = jax.eval_shape(build, struct(users, length, dim), mask)
  state = jax.tree.map(lambda x: struct(*x.shape, dtype=x.dtype), state)
  query = struct(users, candidates, dim)
  bias = jax.ShapeDtypeStruct((state.capacity + 1,), jnp.float32)
  find = functools.partial(user_state.search, k=top_k, backend=backend)
  every = jax.sharding.PartitionSpec()
  mapped = jax.shard_map(
    find,
    mesh=mesh,
    in_specs=(split, split, every),
    out_specs=split,
    check_vma=False,
  )
  return jax.jit(mapped).lower(state, query, bias), state
