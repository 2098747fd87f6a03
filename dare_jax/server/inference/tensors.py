"""Values of tensors, from JSON or binary, checked."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import msgspec
import numpy as np

from dare_jax.server import messages
from dare_jax.server import problems

_DTYPES = {
  **{f'INT{bits}': np.dtype(f'<i{bits // 8}') for bits in (8, 16, 32, 64)},
  **{f'UINT{bits}': np.dtype(f'<u{bits // 8}') for bits in (8, 16, 32, 64)},
}


def shaped(
  name: str, shape: Sequence[int], values: list[Any]
) -> tuple[Sequence[int], list[Any]]:
  """Returns shape and values of an input.

  Args:
    name: what a refusal calls the input.
    shape: its axes.
    values: its values, in row-major order.

  Raises:
    Problem: the shape has another number of values.
  """
  count = math.prod(shape)
  if min(shape, default=0) < 0 or len(values) != count:
    raise problems.bad(
      name, f'the shape {shape} has {count} values, got {len(values)}'
    )
  return shape, values


def plain(name: str, kind: str, data: Any) -> list[Any]:
  """Returns the values of a tensor in JSON, in row-major order.

  Args:
    name: what a refusal calls the tensor.
    kind: its datatype, `BYTES` (text) or one of whole numbers.
    data: its values, in one list or in nested ones.

  Raises:
    Problem: an unknown datatype, or a value that is not of it.
  """
  while data and all(isinstance(row, list) for row in data):
    data = [value for row in data for value in row]
  expected = str if kind == 'BYTES' else int
  if kind != 'BYTES' and kind not in _DTYPES:
    raise _kind(name, kind)
  if any(type(value) is not expected for value in data):
    raise problems.bad(name, f'expected values of {kind}')
  return _checked(name, data)


def binary(name: str, kind: str, blob: bytes) -> list[Any]:
  """Returns the values of a binary tensor, in row-major order.

  Args:
    name: what a refusal calls the tensor.
    kind: its datatype, `BYTES` (text) or one of whole numbers.
    blob: whole numbers, little-endian; or texts in UTF-8, each after its
      length in bytes, which is such a number of 4 bytes.

  Raises:
    Problem: an unknown datatype, or bytes that are no tensor of it.
  """
  if kind in _DTYPES:
    dtype = _DTYPES[kind]
    if len(blob) % dtype.itemsize:
      raise problems.bad(name, f'{len(blob)} bytes are no tensor of {kind}')
    return _checked(name, np.frombuffer(blob, dtype).tolist())
  if kind != 'BYTES':
    raise _kind(name, kind)
  values, place = [], 0
  while place < len(blob):
    size = int.from_bytes(blob[place : place + 4], 'little')
    text = blob[place + 4 : place + 4 + size]
    place += 4 + size
    if place > len(blob):
      raise problems.bad(name, 'the last of its texts is not whole')
    try:
      values.append(text.decode())
    except UnicodeDecodeError:
      raise problems.bad(name, f'{text!r:.60} is not UTF-8') from None
  return _checked(name, values)


def _kind(name: str, kind: str) -> problems.Problem:
  known = ', '.join(['BYTES', *_DTYPES])
  return problems.bad(name, f'datatype {kind!r:.40}: expected one of {known}')


def _checked(name: str, values: list[Any]) -> list[Any]:
  """Returns values that a log may have."""
  try:
    return msgspec.convert(values, list[messages.Raw])
  except msgspec.ValidationError as error:
    raise problems.bad(name, str(error)) from None
