"""Bundles of TPU kernels: how much the compiler's static schedule issues.

A bundle is what a TPU issues in one cycle, for all of its units. Counted are
those of the program as it is laid out, each once, however often it runs: where
the count changes, the schedule did, for better or worse.
"""

from __future__ import annotations

import os
import pathlib
import re

_BUNDLE = re.compile(r'^\s*(?:0x[0-9a-f]+|0)\s.*?\{', re.M)


def ask(folder: pathlib.Path) -> None:
  """Has the compiler write its schedules to a folder.

  It reads this once, when it is loaded: before the first topology is asked for.
  """
  flags = f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true'
  known = os.environ.get('LIBTPU_INIT_ARGS', '')
  os.environ['LIBTPU_INIT_ARGS'] = f'{known} {flags}'.strip()


def count(folder: pathlib.Path, kernel: str) -> int | None:
  """Returns the bundles of a kernel, and removes what the compiler has written.

  None where there is no such kernel.

  Args:
    folder: that of `ask`.
    kernel: part of its name; of several that have it, the largest counts.
  """
  found = None
  for path in sorted(folder.iterdir()):
    name = path.name
    if kernel in name and re.search(r'\d+-final_bundles\.txt$', name):
      found = max(found or 0, read(path.read_text()))
    if path.is_file():
      path.unlink()
  return found


def read(text: str) -> int:
  """Returns the bundles of a schedule.

  >>> read('''control target key
  ...      0   :  { %s1 = inlined_call_operand.vmem [shape: f32[8]]  }
  ...    0x1   :  { %2 = vsyncpa [#allocation3], 0 }
  ...    0x2 LB: > { %s3 = sadd.s32 1, %s4  ;;  %v5 = vld [vmem:%s6] }''')
  3
  """
  return len(_BUNDLE.findall(text))
