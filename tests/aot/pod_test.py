"""Compiling for a pod: with the compiler for TPUs where it is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from dare_jax import errors
from dare_jax.aot import pod

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
@pytest.mark.skipif(not _HAS_COMPILER, reason='needs the extra tpu-aot')
@pytest.mark.parametrize(
  ('topology', 'huge_fits'), [('v5e:2x4', False), ('v5p:2x2x2', True)]
)
def test_the_step_compiles_and_fits(topology, huge_fits, tmp_path):
  output = tmp_path / 'pod.json'
  rows = (1_000_000, 100_000_000, 1_000_000_000)
  done = _bench(
    f'--topology={topology}',
    f'--rows={",".join(map(str, rows))}',
    '--windows=8',
    f'--output={output}',
    f'--figure={tmp_path / "pod.png"}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  small, large, huge = json.loads(output.read_text())['rows']
  assert small['chips'] == 8
  if topology == 'v5e:2x4':  # jaxlib 0.10 cannot print programs of v5p.
    assert large['all_to_all_mb'] == small['all_to_all_mb'] > 0
    # What a step costs does not depend on the rows.
    few, many = small['bytes_accessed_mb'], large['bytes_accessed_mb']
    assert many == pytest.approx(few, rel=0.05)
    for row in (small, large):
      assert row['table_copies'] == 0
      assert row['temporary_mb'] <= 250
  assert large['other_collectives_mb'] == small['other_collectives_mb']
  # Two tables of 16 wide and two slots as wide, all in one line of 128 lanes,
  # in eight parts.
  expected = 128 * 4 * rows[1] / 8 / 1e6
  assert large['state_and_batch_mb'] == pytest.approx(expected, rel=0.1)
  assert small['fits'] and large['fits']
  for row in (small, large):
    assert row['needed_mb'] >= row['state_and_batch_mb']
    assert row['needed_mb'] < row['chip_mb']
  assert huge['fits'] == huge_fits
  assert (huge['needed_mb'] < huge['chip_mb']) == huge_fits
  assert (tmp_path / 'pod.png').stat().st_size > 10_000


@pytest.mark.slow
def test_work_and_bytes_of_a_device_stay_the_same(tmp_path):
  """Weak scaling, as devices made of this CPU can show it."""
  output = tmp_path / 'pod.json'
  done = _bench(
    '--topology=cpu:2,cpu:8',
    '--windows=4',
    '--config.data.history_length=40',
    f'--output={output}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  few, many = json.loads(output.read_text())['rows']
  assert (few['chips'], many['chips']) == (2, 8)
  assert many['gflop'] == pytest.approx(few['gflop'], rel=0.1)
  assert many['other_collectives_mb'] == few['other_collectives_mb']
  # Room for six standard deviations more than the mean is more of a small one.
  assert 0 < many['all_to_all_mb'] <= 2 * few['all_to_all_mb']


@pytest.mark.parametrize('name', ['cpu:', 'cpu:x', 'cpu:0'])
def test_bad_numbers_of_cpu_devices(name):
  with pytest.raises(errors.UsageError, match='cpu:8'):
    pod.make_cpu_devices([name])
