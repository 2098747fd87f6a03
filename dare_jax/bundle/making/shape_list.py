"""The list of shapes that programs are compiled for, as a flag gives it."""

from __future__ import annotations

import re

from dare_jax import errors
from dare_jax.bundle import program_shapes
from dare_jax.serving import user_state

# One user with 32, 128 or 512 candidates, and 16 users with 32 each.
DEFAULT = '1x32,1x128,1x512,16x32'
_CAPACITIES = (256, 1024, 4096, 10240, 20480, 51200)
_ITEM = re.compile(r'(\d+)x(\d+)(?:x(\d+))?')


def parse(
  text: str, history_length: int, top_k: int
) -> tuple[program_shapes.Shape, ...]:
  """Returns shapes, ordered; the last has room for a whole history.

  Args:
    text: users x candidates, or users x candidates x behaviors, between
      commas. Without behaviors: a few lengths, and the longest history.
    history_length: number of behaviors that the model was shown in training.
    top_k: number of behaviors that the model keeps.

  Raises:
    UsageError: another form, a zero, or more behaviors than are ever seen.
  """
  longest = capacity(history_length, top_k)
  some = {n for n in _CAPACITIES if top_k <= n < longest}
  found = set()
  for item in filter(None, (part.strip() for part in text.split(','))):
    match = _ITEM.fullmatch(item)
    if match is None or '0' in match.groups():
      raise errors.UsageError(
        f'--shapes={text}: {item!r}: expected USERSxCANDIDATES or'
        ' USERSxCANDIDATESxBEHAVIORS, such as 1x500 or 1x500x1024.'
      )
    users, candidates = int(match[1]), int(match[2])
    if match[3] is None:
      lengths = {*some, longest}
    else:
      lengths = {capacity(int(match[3]), top_k)}
    found |= {program_shapes.Shape(users, candidates, n) for n in lengths}
  beyond = [shape for shape in found if shape.capacity > longest]
  if beyond:
    raise errors.UsageError(
      f'--shapes={text}: {min(beyond)}: the model sees {history_length}'
      ' behaviors of a history at most.'
    )
  return tuple(sorted(found))


def capacity(length: int, top_k: int) -> int:
  """Returns the slots for histories of a length."""
  return user_state.capacity_of(max(length, top_k))
