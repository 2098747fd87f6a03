"""The device: what it is, how fast it copies, reads and multiplies."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from dare_jax.device_check import clock
from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib
from dare_jax.runs import environment

COPY = 'copy_gb_per_s'
READ = 'read_gb_per_s'
NARROW = 'bfloat16_tflop_per_s'
WIDE = 'float32_tflop_per_s'


def run(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  """Measures the device itself."""
  device = jax.devices()[0]
  memory = (device.memory_stats() or {}).get('bytes_limit')
  name = device.device_kind
  report.add(name, 'backend', device.platform)
  report.add(name, 'devices', jax.device_count())
  report.add(name, 'memory_gb', memory and memory / 1e9)
  for package, version in environment.versions().items():
    if package != 'devices':
      report.add(name, package, version)
  with report.case('memory'):
    values = jnp.ones(sizes.array_mb * 250_000, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    total = jax.jit(jnp.sum)
    moved = values.nbytes / 1e9
    report.add(name, COPY, 2 * moved / clock.seconds(copy, values))
    report.add(name, READ, moved / clock.seconds(total, values))
    del values
  for measure, dtype, precision in (
    (NARROW, jnp.bfloat16, 'default'),
    (WIDE, jnp.float32, 'highest'),
    ('float32_default_tflop_per_s', jnp.float32, 'default'),
  ):
    with report.case(measure):
      square = jax.random.normal(
        jax.random.key(0), (sizes.matrix, sizes.matrix), dtype
      )
      multiply = jax.jit(functools.partial(_square, precision))
      taken = clock.seconds(multiply, square)
      report.add(name, measure, 2e-12 * sizes.matrix**3 / taken)


def _square(precision: str, matrix: Any) -> Any:
  return jnp.matmul(matrix, matrix, precision=precision)
