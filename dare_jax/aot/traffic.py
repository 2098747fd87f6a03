"""What a compiled program moves, read from its text."""

from __future__ import annotations

import math
import re

_KINDS = (
  'all-gather',
  'all-reduce',
  'all-to-all',
  'collective-permute',
  'reduce-scatter',
)
# `name = SHAPES kind(operands`; asynchronous ones count where they start.
_LINE = re.compile(
  rf'= (?P<shapes>.*?) (?P<kind>{"|".join(_KINDS)})(?P<start>-start)?\('
)
_COPY = re.compile(r'= (?P<shapes>[^=]*?) (?:copy|copy-start|transpose)\(')
# What computes nothing of its own.
_WRITTEN = re.compile(
  r'= (?P<shapes>[^=]*?) (?!parameter|constant|bitcast|tuple|get-tuple-element'
  r'|while|call|conditional)[a-z][a-z\-]*\('
)
_FAST_MEMORY = 'S(1)'
_SHAPE = re.compile(r'(?P<kind>pred|[a-z]+\d+)\[(?P<sizes>[\d,]*)\]')


def collective_bytes(text: str) -> dict[str, int]:
  """Returns the bytes that a device receives, by kind of collective.

  What is inside a loop counts once: the bytes of one round.

  >>> collective_bytes('%a = f32[8,16]{1,0} all-to-all(%b), dimensions={0}')
  {'all-to-all': 512}
  >>> collective_bytes('%a = f32[8]{0} all-reduce-start(%b), to_apply=%add')
  {'all-reduce': 32}

  Args:
    text: the HLO text of a program, as `jax.stages.Compiled.as_text` returns
      it.
  """
  total: dict[str, int] = {}
  for match in _LINE.finditer(text):
    sizes = [_bytes(shape) for shape in _SHAPE.finditer(match['shapes'])]
    # An asynchronous start has its operands beside its results, but for sums.
    both = match['start'] and match['kind'] != 'all-reduce'
    size = sum(sizes) // 2 if both else sum(sizes)
    total[match['kind']] = total.get(match['kind'], 0) + size
  return total


def count_copies(text: str, height: int) -> int:
  """Returns how many operations do nothing but copy an array of some height.

  Copies into a chip's own fast memory, or back from it, do not count.

  >>> count_copies('%a = f32[16,800]{0,1:T(8,128)} copy(%b)', 800)
  1

  Args:
    text: the HLO text of a program, as `jax.stages.Compiled.as_text` returns
      it.
    height: the size of the array along any of its axes, since it may be
      transposed.
  """
  return sum(
    _FAST_MEMORY not in match['shapes']
    and any(
      str(height) in shape['sizes'].split(',')
      for shape in _SHAPE.finditer(match['shapes'])
    )
    for match in _COPY.finditer(text)
  )


def result_bytes(line: str) -> int:
  """Returns the bytes that the operation on a line of HLO writes.

  >>> result_bytes('%a = f32[8,16]{1,0} fusion(%b), kind=kLoop')
  512
  >>> result_bytes('%a = f32[8,16]{1,0} bitcast(%b)')
  0
  """
  if (match := _WRITTEN.search(line)) is None:
    return 0
  return sum(map(_bytes, _SHAPE.finditer(match['shapes'])))


def is_collective(line: str) -> bool:
  """Returns whether the operation on a line of HLO is between devices.

  >>> is_collective('%a = f32[8]{0} all-reduce-start(%b), to_apply=%add')
  True
  >>> is_collective('%a = f32[8]{0} fusion(%all-reduce.1), kind=kLoop')
  False
  """
  return _LINE.search(line) is not None


def _bytes(shape: re.Match[str]) -> int:
  bits = int(re.sub(r'\D', '', shape['kind']) or 8)  # `pred` takes a byte.
  sizes = [int(size) for size in shape['sizes'].split(',') if size]
  return math.prod(sizes) * max(1, bits // 8)
