"""Process-wide settings, made before JAX starts."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
from typing import Any

from absl import logging

# malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# JAX reads the variable of this name in capitals.
_MIN_COMPILE_SECONDS = 'jax_persistent_cache_min_compile_time_secs'


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings of a process.

  Attributes:
    compilation_cache: folder of compiled programs; '' for none.
    tune_malloc: whether large buffers stay mapped, see `keep_memory`.
  """

  compilation_cache: str
  tune_malloc: bool


def of_section(section: Any) -> Options:
  """Returns the settings that a config's section `runtime` holds."""
  return Options(**section)


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


def configure(options: Options) -> None:
  """Applies the settings to this process.

  Keeps large buffers mapped, see `keep_memory`, and caches compiled programs on
  disk: those that take half a second, or what the environment says.
  """
  if options.tune_malloc:
    keep_memory()
  import jax  # After the allocator is set.

  if options.compilation_cache:
    directory = os.path.expanduser(options.compilation_cache)
    jax.config.update('jax_compilation_cache_dir', directory)
    if _MIN_COMPILE_SECONDS.upper() not in os.environ:
      jax.config.update(_MIN_COMPILE_SECONDS, 0.5)
