"""Several devices: their tests run in a process that has eight of them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

_FILES = [
  str(pathlib.Path(__file__).with_name(name))
  for name in ('eight_devices.py', 'eight_devices_sets.py')
]


_FLAGS = (
  '--xla_force_host_platform_device_count=8'
  # Eight devices on few cores: one that waits for its turn is not stuck.
  ' --xla_cpu_collective_call_terminate_timeout_seconds=600'
)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_eight_devices():
  pytest_flags = ['-n', '0', '-p', 'no:cacheprovider']
  done = subprocess.run(
    [sys.executable, '-m', 'pytest', *pytest_flags, *_FILES],
    env=os.environ | {'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} {_FLAGS}'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout[-6000:]
