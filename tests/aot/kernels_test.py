"""Compiling the search for TPUs: with their compiler where it is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest

from tests.aot import commands
from tests.aot import figures

_HAS_COMPILER = importlib.util.find_spec('libtpu') is not None
_HAS_GPUS = importlib.util.find_spec('jax_cuda13_plugin') is not None


def _bench(*flags):
  return commands.bench('kernels', *flags)


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
  figures.compare('search v5e:2x4, 50,000 keys, 128 targets', row)


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_GPUS, reason='needs the extra gpu-aot')
def test_the_kernel_compiles_for_gpus(tmp_path):
  output = tmp_path / 'kernels.json'
  done = _bench(
    '--topology=h100:1x1x1',
    '--form=kernel',
    '--candidates=16',
    f'--output={output}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  (row,) = json.loads(output.read_text())['rows']
  keys_mb = 8 * 50_000 * 32 * 4 / 1e6
  assert keys_mb < row['arguments_mb'] < 1.1 * keys_mb
  # Scores are not written to memory, but a sixteenth is, and sorted.
  assert row['temporary_mb'] < 0.3 * 8 * 16 * 50_000 * 4 / 1e6
  if shutil.which('ptxas'):
    assert 0 < row['registers'] <= 128
    assert row['spill_bytes'] == 0
  figures.compare('search h100, 50,000 keys, 16 targets', row)
