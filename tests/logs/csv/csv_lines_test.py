"""The fast reading of CSV blocks agrees with one that goes byte by byte."""

from __future__ import annotations

import numpy as np
import pytest

from dare_jax.logs.csv import csv_lines

_NAMES = ('a', 'b', 'c')


def _fields(text):
  """One row of text as RFC 4180 has it; None if it is none."""
  fields, at = [], 0
  while True:
    field = ''
    if text[at] == '"':
      at += 1
      while text[at : at + 2] == '""' or text[at : at + 1] not in ('"', ''):
        field += text[at]
        at += 2 if text[at] == '"' else 1
      at += 1
    else:
      while text[at] not in ',\n':
        field += text[at]
        at += 1
    fields.append(field)
    if text[at:] == '\n':
      return fields
    if text[at : at + 1] != ',':
      return None
    at += 1


def _reference(block):
  """The line at which each row starts, with its fields."""
  lines = block.decode(errors='surrogateescape').split('\n')[:-1]
  rows, at = [], 0
  while at < len(lines):
    found, used = None, 1
    for end in range(at + 1, len(lines) + 1):
      text = '\n'.join(lines[at:end]) + '\n'
      row = None if '\udce9' in text else _fields(text)
      if row is not None and not any(row[len(_NAMES) :]):
        row = row[: len(_NAMES)]
      if row is not None and (len(row) == len(_NAMES) or end == at + 1):
        found, used = row, end - at
        break
    rows.append((at, found))
    at += used
  return rows


def _parsed(block, separator=','):
  dialect = csv_lines.Dialect(separator)
  frame, starts, used = csv_lines.parse(block, _NAMES, True, dialect)
  assert used >= len(block)
  if starts is None:
    starts = range(len(frame))
  rows = []
  for start, row in zip(starts, frame.rows(), strict=True):
    fields = [field or '' for field in row[: len(_NAMES)]]
    rows.append((start, None if row[-1] else fields))
  return rows


def _agree(row, right):
  if right is None or len(right) > len(_NAMES):
    return row is None
  if len(right) == len(_NAMES):
    return row == right
  # Missing fields are read as empty ones, or the row is none.
  return row in (None, right + [''] * (len(_NAMES) - len(right)))


@pytest.mark.parametrize('seed', range(300))
def test_blocks_of_odd_lines_agree_with_the_reference(seed):
  rng = np.random.default_rng(seed)
  texts = ['x', '', '"y"', '"p,q"', '"a ""b"" c"', '5" z', '""']
  texts = [text.encode() for text in texts]
  odd = [b'"s', b't"', b'"u"v', b'"a\nb"', b'\xe9', b'"m\n""n"",\no"', b'"']
  share = rng.choice([0.0, 0.03, 0.3])
  lines = []
  for _ in range(rng.integers(1, 30)):
    row = [
      rng.choice(odd if rng.random() < share else texts)
      for _ in range(rng.choice([2, 3, 3, 3, 3, 3, 4, 5, 6]))
    ]
    lines.append(b','.join(row) + b'\n')
  block = b''.join(lines)
  expected, parsed = _reference(block), _parsed(block)
  assert [start for start, _ in parsed] == [start for start, _ in expected]
  for (_, row), (_, right) in zip(parsed, expected, strict=True):
    assert _agree(row, right), (row, right)
  # Another separator is read by the same rules.
  other = _parsed(block.replace(b',', b'\t'), '\t')
  for (start, row), (right_start, right) in zip(other, parsed, strict=True):
    assert start == right_start
    assert row == (right and [field.replace(',', '\t') for field in right])


def test_a_row_that_a_block_cuts_is_left_for_the_next():
  block = b'1,x,2\n3,"y\nz",4\n5,"v\nw'
  frame, starts, used = csv_lines.parse(block + b'\n', _NAMES, is_last=False)
  assert used == block.index(b'5')
  assert starts.tolist() == [0, 1]
  assert frame['b'].to_list() == ['x', 'y\nz']
  stray = b'5,"v,6\n' + b'7,x,8\n' * 200
  frame, _, used = csv_lines.parse(stray, _NAMES, is_last=False)
  assert used == len(stray)
  assert frame[csv_lines.EXTRA].to_list()[0]
  assert frame['a'].to_list()[1:] == ['7'] * 200
