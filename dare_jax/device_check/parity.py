"""Losses of the same training on the device and on this machine's CPU."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import jax
import numpy as np

from dare_jax.device_check import made
from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib

_SECONDS = 300
# Of a loss: the most that the first step's and any later one's may differ. On a
# CPU, initial values changed by 1e-6 of themselves make losses of 50 steps
# differ by 0.9 %, and by 0.4 %, as bfloat16 rounds, by 2.3 %: behaviors at the
# edge of the top k change places. Unasked, devices round factors to TF32 or
# bfloat16.
_BOUNDS = {'highest': (1e-4, 0.03), 'default': (0.01, 0.06)}


def run(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  """Trains on both, from the same seed on the same batches."""
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  given = (sizes.steps, sizes.moments, sizes.parity_rows, sizes.length)
  command = [sys.executable, '-m', 'dare_jax.device_check.cpu_losses']
  with contextlib.ExitStack() as stack:
    other = stack.enter_context(
      subprocess.Popen(
        [*command, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
      )
    )
    stack.callback(other.kill)
    found = {}
    for precision in _BOUNDS:
      with (
        report.case(f'losses, {precision} precision'),
        jax.default_matmul_precision(precision),
      ):
        found[precision] = losses(*given)
    told, _ = other.communicate(timeout=_SECONDS)
  if other.returncode:
    raise RuntimeError('the training on the CPU failed; its error is above')
  expected = json.loads(told.splitlines()[-1])
  for precision, own in found.items():
    apart = np.abs(np.subtract(own, expected)) / np.abs(expected)
    case = f'losses of {sizes.steps} steps, {precision} precision'
    report.add(case, 'first', own[0])
    report.add(case, 'last', own[-1])
    report.add(case, 'last_on_cpu', expected[-1])
    for measure, found_apart, most in zip(
      ('first_apart', 'most_apart'),
      (apart[0], apart.max()),
      _BOUNDS[precision],
      strict=True,
    ):
      report.add(
        case,
        measure,
        float(found_apart),
        passed=bool(found_apart <= most),
        note=f'relative, at most {most}',
      )


def losses(steps: int, moments: int, rows: int, length: int) -> list[float]:
  """Returns the losses of a training of DARE on one device."""
  trainer = made.trainer('dare', rows, jax.devices()[:1])
  make = lambda number: made.batch(number, rows, moments, length)
  return [float(loss) for _, loss in made.train(trainer, steps, make)]
