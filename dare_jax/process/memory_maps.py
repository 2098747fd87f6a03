"""How near this process is to the number of memory maps that Linux allows.

XLA's CPU backend maps each kernel of a program by itself, so that a training
step takes some 1,500 maps. Beyond the limit of a process, 65,530 where nobody
has changed it, compiling ends the process ("LLVM ERROR: Unable to allocate
section memory"), however much memory is free.
"""

from __future__ import annotations

import pathlib

_TAKEN = pathlib.Path('/proc/self/maps')
_LIMIT = pathlib.Path('/proc/sys/vm/max_map_count')
_SHARE = 0.7


def nearly_all_taken() -> bool:
  """Returns whether the maps of this process come near its limit.

  False where the system tells neither.
  """
  try:
    limit = int(_LIMIT.read_text())
    with _TAKEN.open('rb') as lines:
      return sum(1 for _ in lines) > _SHARE * limit
  except (OSError, ValueError):
    return False
