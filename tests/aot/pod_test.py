"""Compiling for a pod: with the compiler for TPUs where it is installed."""

from __future__ import annotations

import importlib.util
import json

import pytest

from dare_jax import errors
from dare_jax.aot import gpu
from dare_jax.aot import pod
from tests.aot import commands
from tests.aot import figures

_HAS_COMPILER = importlib.util.find_spec('libtpu') is not None
_HAS_GPUS = importlib.util.find_spec('jax_cuda13_plugin') is not None


def _bench(*flags):
  return commands.bench('pod', *flags)


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
    # More rows cost no more. Few fit into a chip's fast memory, and go there.
    few, many = small['bytes_accessed_mb'], large['bytes_accessed_mb']
    assert many <= 1.05 * few
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
  figures.compare(f'step {topology}, 1e8 rows, 8 windows', large)


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_GPUS, reason='needs the extra gpu-aot')
def test_the_step_compiles_for_gpus_with_default_flags(tmp_path):
  output = tmp_path / 'pod.json'
  # In turns of 18 windows, ten are left over: they are scored apart.
  done = _bench('--topology=h100:1x1x8', '--windows=28', f'--output={output}')
  assert done.returncode == 0, done.stderr[-3000:]
  (row,) = json.loads(output.read_text())['rows']
  assert row['chips'] == 8
  # Two tables of 16 wide and two slots as wide, in eight parts.
  expected = 2 * 16 * 4 * 3 * 1e6 / 8 / 1e6
  assert row['state_and_batch_mb'] == pytest.approx(expected, rel=0.1)
  assert row['fits'] and row['needed_mb'] < 1e3 < row['chip_mb']
  assert row['all_to_all_mb'] > 0
  assert 0.01 < row['estimate_ms'] < 100
  figures.compare('step h100:1x1x8, 1e6 rows, 28 windows', row)


@pytest.mark.parametrize('name', ['h100', 'h100:8', 'h100:1x8', 'h100:axbxc'])
def test_bad_shapes_of_gpus(name):
  with pytest.raises(errors.UsageError, match='expected such as h100:1x1x8'):
    pod.devices_of(name)


@pytest.mark.skipif(_HAS_GPUS, reason='the extra gpu-aot is installed')
def test_gpus_need_their_compiler():
  with pytest.raises(errors.UsageError, match='gpu-aot'):
    pod.devices_of('a100:1x1x8')


def test_time_of_loops_and_calls():
  text = """%body (x: f32[8]) -> f32[8] {
  %y = fusion(%x), backend_config={"exec_time_us":2.0}
}
%called (x: f32[8]) -> f32[8] {
  %y = fusion(%x), backend_config={"exec_time_us":0.5}
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %a = while(%x), body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %b = f32[8] call(%a), to_apply=%called
  %d = f32[8] all-reduce-start(%b), backend_config={"exec_time_us":64.0}
  ROOT %c = fusion(%b), backend_config={"exec_time_us":1e1}
}"""
  assert gpu.estimate_us(text) == 5 * 2.0 + 0.5 + 10


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
