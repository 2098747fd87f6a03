"""Compiling the search for TPUs: with their compiler where it is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

_HAS_COMPILER = importlib.util.find_spec('libtpu') is not None


def _bench(*flags):
  return subprocess.run(
    [sys.executable, '-m', 'dare_jax.bench', 'kernels', *flags],
    capture_output=True,
    text=True,
    check=False,
  )


def test_bad_values_are_refused():
  done = _bench('--dim=0')
  assert done.returncode == 2, done.stderr
  assert '--dim=0: expected whole numbers' in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_COMPILER, reason='needs the extra tpu-aot')
def test_the_kernel_compiles_and_keeps_its_scores_on_the_chip(tmp_path):
  output = tmp_path / 'kernels.json'
  length, candidates, histories = 50_000, 128, 2
  done = _bench(
    '--form=kernel',
    f'--length={length}',
    f'--candidates={candidates}',
    f'--histories={histories}',
    f'--output={output}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  (row,) = json.loads(output.read_text())['rows']
  keys_mb = histories * length * 32 * 4 / 1e6
  # Narrow keys are not padded, nor copied to be read.
  assert keys_mb < row['arguments_mb'] < 1.1 * keys_mb
  assert row['temporary_mb'] < 0.1 * keys_mb
  assert row['temporary_mb'] < 0.1 * histories * candidates * length * 4 / 1e6
  assert row['sorts'] == 0
