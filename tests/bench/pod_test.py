"""Compiling for a pod: with the compiler for TPUs where it is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

_HAS_COMPILER = importlib.util.find_spec('libtpu') is not None


def _bench(*flags):
  return subprocess.run(
    [sys.executable, '-m', 'dare_jax.bench', 'pod', *flags],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_a_slice_that_there_is_not():
  done = _bench('--topology=v9z:2x4')
  assert done.returncode == 2, done.stderr
  assert '--topology=v9z:2x4' in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_COMPILER, reason='needs the extra tpu_aot')
@pytest.mark.parametrize('topology', ['v5e:2x4', 'v5p:2x2x2'])
def test_the_step_compiles_and_fits(topology, tmp_path):
  output = tmp_path / 'pod.json'
  rows = (1_000_000, 100_000_000)
  done = _bench(
    f'--topology={topology}',
    f'--rows={",".join(map(str, rows))}',
    '--windows=8',
    f'--output={output}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  small, large = json.loads(output.read_text())['rows']
  assert small['chips'] == 8
  assert large['all_to_all_mb'] == small['all_to_all_mb'] > 0
  assert large['other_collectives_mb'] == small['other_collectives_mb']
  # Two tables of 16 wide and two slots as wide, in eight parts.
  expected = 2 * 16 * 4 * 3 * rows[1] / 8 / 1e6
  assert large['state_and_batch_mb'] == pytest.approx(expected, rel=0.1)
