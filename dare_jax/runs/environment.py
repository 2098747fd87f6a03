"""What a result was made with."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

import dare_jax


def code_version() -> str:
  """Returns the package's version, and the git revision in a checkout."""
  folder = pathlib.Path(dare_jax.__file__).parent
  try:
    revision = subprocess.run(
      ['git', '-C', str(folder), 'rev-parse', '--short', 'HEAD'],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return dare_jax.__version__
  return f'{dare_jax.__version__}+{revision}'


def versions() -> dict[str, Any]:
  """Returns versions and devices."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {
    'dare_jax': code_version(),
    'python': platform.python_version(),
    'platform': sys.platform,
    **{name: importlib.metadata.version(name) for name in packages},
    'devices': [device.device_kind for device in jax.devices()],
  }
