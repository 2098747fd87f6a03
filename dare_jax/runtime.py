"""Process-wide settings, made before JAX starts."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from absl import logging

# malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_memory() -> None:
  """Keeps large buffers mapped between steps.

  By default glibc gives every buffer above 32 MB back to the kernel, and the
  next step pays its page faults anew. Keeping them takes a single arena, too:
  those of other threads, such as the one that runs a step, hold no buffer above
  64 MB and map it anew each time. It must be said before there is a second
  thread: importing polars starts some.
  """
  if sys.platform != 'linux':
    return
  try:
    libc = ctypes.CDLL('libc.so.6')
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_ARENA_MAX, 1)
  except (OSError, AttributeError) as error:
    logging.info('the allocator was left alone: %s', error)


def configure(runtime: Any) -> None:
  """Applies the config's runtime section.

  Keeps large buffers mapped, see `keep_memory`, and caches compiled programs on
  disk.
  """
  if runtime.tune_malloc:
    keep_memory()
  import jax  # After the allocator is set.

  if runtime.compilation_cache:
    directory = os.path.expanduser(runtime.compilation_cache)
    jax.config.update('jax_compilation_cache_dir', directory)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
