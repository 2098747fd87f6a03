"""Benchmarks that ask other compilers than the suite's own."""

from __future__ import annotations

import os
import subprocess
import sys


def bench(*arguments: str) -> subprocess.CompletedProcess:
  """Runs `python -m dare_jax.bench` to its end, without the suite's XLA flags.

  A compiler for TPUs ends a process at a flag that it does not know.
  """
  environment = dict(os.environ)
  environment.pop('XLA_FLAGS', None)
  return subprocess.run(
    [sys.executable, '-m', 'dare_jax.bench', *arguments],
    capture_output=True,
    text=True,
    check=False,
    env=environment,
  )
