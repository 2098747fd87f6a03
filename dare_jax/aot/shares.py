"""Which part of the model a compiled program for TPUs spends its time on.

Read from the program's text: what of the model an operation comes from, the
cycles that the compiler expects of it, and what it reads and writes, of which
it writes more than the model has: the last two axes of an array are filled up
to tiles. What is in a loop counts as often as the loop runs, where the text
tells. The compiler expects no cycles of gathers, scatters and sorts: of these,
the rows that are moved one by one are counted, and the numbers sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
import math
import re
from typing import Any
from typing import NamedTuple

_COMPUTATION = re.compile(r'(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(
  r'\s+(?:ROOT )?%(?P<name>[\w.\-]+) = (?P<shape>.*?) (?P<kind>[a-z][\w\-]*)'
  r'\((?P<operands>[^)]*)\)(?P<rest>.*)'
)
_ARRAY = re.compile(
  r'(?P<type>pred|[a-z]+\d+)\[(?P<sizes>[\d,]*)\]'
  r'(?:\{(?P<order>[\d,]*):T\((?P<tile>[\d,]+)\))?'
)
_CALLED = re.compile(r'(?:calls|body|branch_computations)=(\{[^}]*\}|[^\s,]+)')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
# They move nothing, or what their start has counted.
_FREE = re.compile(
  r'parameter|constant|tuple|get-tuple-element|bitcast|custom-call|.*-done'
)
# The first whose pattern is found in an operation's source.
_PARTS = {
  'scores': r'Ranker\.scores',
  'top k': r'top_k',
  'search, the rest': r'Ranker\._find',
  'auxiliary pooling': r'Ranker\.attend',
  'values of the behaviors kept': r'_values_at|Ranker\._predict/.*aggregator',
  'vectors of ids': r'encoder|encode_',
  'heads': r'/(?:head|aux)/|_features|_aux_logits',
  'the rest of the model': r'Ranker',
}
_TABLES = 'exchange and update of rows'


class _Instruction(NamedTuple):
  shape: str
  kind: str
  operands: list[str]
  line: str


class _Run(NamedTuple):
  own: _Instruction
  shapes: dict[str, str]
  times: int
  source: str


def of_parts(text: str) -> list[dict[str, Any]]:
  """Returns what each part of a training step moves and takes.

  >>> [part] = of_parts('''ENTRY %main (a: f32[8,16]) -> f32[8,16] {
  ...   %a = f32[8,16]{1,0:T(8,128)} parameter(0)
  ...   ROOT %b = f32[8,16]{1,0:T(8,128)} negate(%a), \\
  ... metadata={op_name="Ranker.scores/neg"}, "estimated_cycles":"3000"
  ... }''')
  >>> part['part'], part['moved_mb'], part['mcycles']
  ('scores', 0.008192, 0.003)

  Args:
    text: HLO of a TPU, as of `jax.stages.Compiled.as_text`.

  Returns:
    Of each part: `moved_mb`, `mcycles` (millions), `one_by_one` (rows gathered
    or scattered) and `sorted` (numbers).
  """
  program = _parse(text)
  total: dict[str, dict[str, float]] = {}
  for one in _walk(program, program[''], 1, ''):
    sums = total.setdefault(
      _part_of(one.source),
      dict.fromkeys(('moved_mb', 'mcycles', 'one_by_one', 'sorted'), 0),
    )
    cycles = _CYCLES.search(one.own.line)
    singly = _moved_singly(program, one.own, one.shapes)
    sums['moved_mb'] += one.times * _moved(one, singly > 0) / 1e6
    sums['mcycles'] += one.times * int(cycles[1] if cycles else 0) / 1e6
    sums['one_by_one'] += one.times * singly
    if one.own.kind == 'sort':
      sums['sorted'] += one.times * math.prod(_sizes(one.own.shape))
  order = [*_PARTS, _TABLES]
  return [{'part': part} | total[part] for part in order if part in total]


def _part_of(source: str) -> str:
  for part, pattern in _PARTS.items():
    if re.search(pattern, source):
      return part
  return _TABLES


def _parse(text: str) -> dict[str, dict[str, _Instruction]]:
  """Returns the instructions of each computation; '' is where it begins."""
  found: dict[str, dict[str, _Instruction]] = {}
  own: dict[str, _Instruction] = {}
  for line in text.splitlines():
    if head := _COMPUTATION.match(line):
      own = found.setdefault(head['name'], {})
      if head['entry']:
        found[''] = own
    elif match := _INSTRUCTION.match(line):
      operands = re.findall(r'%([\w.\-]+)', match['operands'])
      own[match['name']] = _Instruction(
        match['shape'], match['kind'], operands, line
      )
  return found


def _walk(
  program: dict[str, dict[str, _Instruction]],
  computation: dict[str, _Instruction],
  times: int,
  source: str,
) -> Iterator[_Run]:
  """Yields what runs; what tells no source has that of the loop around it."""
  shapes = {name: own.shape for name, own in computation.items()}
  for own in computation.values():
    told = _SOURCE.search(own.line)
    inner = told[1] if told else source
    if own.kind in ('while', 'conditional'):
      trips = _trips(program, own) if own.kind == 'while' else 1
      for name in _called(own):
        yield from _walk(program, program.get(name, {}), times * trips, inner)
    elif not _FREE.fullmatch(own.kind):
      yield _Run(own, shapes, times, inner)


def _trips(
  program: dict[str, dict[str, _Instruction]], loop: _Instruction
) -> int:
  """Returns how often a loop runs; 1 where that depends on data.

  Such are the rounds of an exchange: one, as a rule.
  """
  condition = re.search(r'condition=%?([\w.\-]+)', loop.line)
  lines = program.get(condition[1] if condition else '', {}).values()
  text = ' '.join(each.line for each in lines)
  trips = [int(number) for number in re.findall(r'constant\((\d+)\)', text)]
  return max(trips, default=1) if 'direction=LT' in text else 1


def _moved(one: _Run, singly: bool) -> int:
  """Returns the bytes of an operation's arrays.

  Of what is gathered from or scattered into, the rows are counted alone.
  """
  own = one.own
  arrays = [own.shape]
  if not own.kind.endswith('-start'):  # It has its operands beside.
    arrays += [one.shapes.get(name, '') for name in own.operands]
  sizes = [
    _bytes(array) for shape in arrays for array in _ARRAY.finditer(shape)
  ]
  largest = max(sizes, default=0)
  return sum(size for size in sizes if not singly or size < largest)


def _called(instruction: _Instruction) -> list[str]:
  names = ' '.join(_CALLED.findall(instruction.line))
  return re.findall(r'[\w.\-]+', names)


def _moved_singly(
  program: dict[str, dict[str, _Instruction]],
  instruction: _Instruction,
  shapes: dict[str, str],
) -> int:
  """Returns how many rows an operation, or what is fused in it, moves so."""
  line = instruction.line
  if instruction.kind == 'gather':
    slices = re.search(r'slice_sizes=\{([\d,]*)\}', line)
    size = math.prod(_numbers(slices[1] if slices else ''))
    return math.prod(_sizes(instruction.shape)) // size
  if instruction.kind in ('dynamic-slice', 'dynamic-update-slice'):
    return 1
  if instruction.kind == 'scatter':
    index = _sizes(shapes.get(instruction.operands[1], ''))
    axis = re.search(r'index_vector_dim=(\d+)', line)
    if axis and int(axis[1]) < len(index):
      del index[int(axis[1])]
    return math.prod(index)
  total = 0
  if instruction.kind == 'fusion':
    for name in _called(instruction):
      own = program.get(name, {})
      inner = {name: each.shape for name, each in own.items()}
      total += sum(_moved_singly(program, each, inner) for each in own.values())
  return total


def _bytes(array: re.Match[str]) -> int:
  """Returns the bytes of an array, as it lies in tiles."""
  sizes = _numbers(array['sizes'])
  if array['tile']:
    tile = _numbers(array['tile'])
    lie = [sizes[axis] for axis in reversed(_numbers(array['order']))]
    lie = [1] * (len(tile) - len(lie)) + lie
    low = len(lie) - len(tile)
    filled = [-(-n // t) * t for n, t in zip(lie[low:], tile, strict=True)]
    sizes = lie[:low] + filled
  bits = int(re.sub(r'\D', '', array['type']) or 8)  # `pred` takes a byte.
  return math.prod(sizes) * max(1, bits // 8)


def _sizes(shape: str) -> list[int]:
  first = _ARRAY.search(shape)
  return _numbers(first['sizes'] if first else '')


def _numbers(text: str) -> list[int]:
  return [int(number) for number in text.split(',') if number]
