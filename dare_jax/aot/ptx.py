"""Registers and spills of GPU kernels, by NVIDIA's assembler."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

_TARGET = re.compile(r'^\.target (?P<name>\w+)', re.M)
_ENTRY = re.compile(
  r"Compiling entry function '(?P<name>\w+)'.*?"
  r'(?P<spilled>\d+) bytes spill stores.*?'
  r'Used (?P<registers>\d+) registers',
  re.S,
)


def registers_and_spills(
  folder: pathlib.Path, kernel: str
) -> tuple[int | None, int | None]:
  """Returns the most registers, and bytes of spills, that a kernel takes.

  None where there is no assembler (`ptxas`, of CUDA's toolkit), or no such
  kernel.

  Args:
    folder: the folder into which XLA has dumped its programs.
    kernel: part of the kernel's name; several kernels with it count together.
  """
  assembler = shutil.which('ptxas')
  if assembler is None:
    return None, None
  found = []
  for path in sorted(folder.rglob('*.ptx')):
    target = _TARGET.search(path.read_text())
    if target is None:
      continue
    done = subprocess.run(
      [assembler, '-v', f'-arch={target["name"]}', '-o', '/dev/null', path],
      capture_output=True,
      text=True,
      check=False,
    )
    found += read(done.stderr + done.stdout, kernel)
  if not found:
    return None, None
  registers, spilled = zip(*found, strict=True)
  return max(registers), max(spilled)


def read(told: str, kernel: str) -> list[tuple[int, int]]:
  """Returns registers and bytes of spill stores of each kernel named so.

  >>> told = '''ptxas info : Compiling entry function 'top_k_1' for 'sm_90a'
  ... ptxas info : Function properties for top_k_1
  ...     8 bytes stack frame, 16 bytes spill stores, 12 bytes spill loads
  ... ptxas info : Used 166 registers, used 1 barriers'''
  >>> read(told, 'top_k'), read(told, 'other')
  ([(166, 16)], [])

  Args:
    told: the output of `ptxas -v`.
    kernel: part of the kernel's name.
  """
  return [
    (int(match['registers']), int(match['spilled']))
    for match in _ENTRY.finditer(told)
    if kernel in match['name']
  ]
