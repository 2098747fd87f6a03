"""Several devices: their tests run in a process that has eight of them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

_FILE = pathlib.Path(__file__).with_name('eight_devices.py')


@pytest.mark.slow
def test_eight_devices():
  flags = '--xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', str(_FILE)],
    env=os.environ | {'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout[-6000:]
