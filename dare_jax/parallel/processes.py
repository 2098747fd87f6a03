"""What several processes of one training tell each other."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import TypeVar
import zlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from dare_jax import errors

T = TypeVar('T')
_MESSAGE_BYTES = 1024


def is_first() -> bool:
  """Whether this process writes the files and the screen."""
  return jax.process_index() == 0


def is_alone() -> bool:
  """Whether this is the only process of the training."""
  return jax.process_count() == 1


def gather(array: np.ndarray) -> np.ndarray:
  """Returns everyone's array, the bytes unchanged: [processes, *shape].

  All processes call it at the same point, with the same shape and dtype.
  """
  array = np.ascontiguousarray(array)
  if is_alone():
    return array[None]
  bits = multihost_utils.process_allgather(array.reshape(-1).view(np.uint8))
  bits = np.ascontiguousarray(bits).reshape(jax.process_count(), -1)
  return bits.view(array.dtype).reshape(-1, *array.shape)


def any_of(flag: bool) -> bool:
  """Returns whether any process raises its flag; all get the same answer."""
  return bool(gather(np.array([flag])).any())


def preempted(call: int) -> bool:
  """Returns whether JAX's preemption service had a notice for any process.

  Args:
    call: counts the calls, which all processes make at the same points. The
      service answers yes at one of them, the same for all.
  """
  try:
    return multihost_utils.reached_preemption_sync_point(call)
  except RuntimeError:  # It is switched off.
    return False


def largest(number: int) -> int:
  """Returns the largest of all processes' numbers; all get the same answer."""
  return int(gather(np.array([number])).max())


def agree_on(values: Mapping[str, Any]) -> None:
  """Raises UsageError on all processes for a value that differs between them.

  Args:
    values: name -> value; all processes give the same names.
  """
  texts = {name: str(value) for name, value in values.items()}
  sums = [zlib.crc32(text.encode()) for text in texts.values()]
  everyone = gather(np.array(sums, np.uint32))
  for name, column in zip(texts, everyone.T, strict=True):
    if (column != column[0]).any():
      other = int(np.argmax(column != column[0]))
      told = _gather_texts(texts[name])
      raise errors.UsageError(
        f'{name} of process {other} is {told[other]!r}, that of process 0'
        f' {told[0]!r}; all processes need the same.'
      )


def in_turn(function: Callable[[], T]) -> T:
  """Calls a function on the first process, then on all others.

  What the first makes on a shared disk, the others find there. If it fails
  with a UsageError on any process, all raise one.
  """
  result, failure = None, ''
  for turn in (True, False):
    if is_first() == turn:
      try:
        result = function()
      except errors.UsageError as error:
        failure = str(error)
    if failure := first_text(failure):
      raise errors.UsageError(failure)
  return result  # type: ignore[return-value]


def first_text(text: str) -> str:
  """Returns the text of the first process that has one; all get the same."""
  return next(filter(None, _gather_texts(text)), '')


def _gather_texts(text: str) -> list[str]:
  mine = np.zeros(_MESSAGE_BYTES, np.uint8)
  encoded = text.encode()[:_MESSAGE_BYTES]
  mine[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  return [
    row.tobytes().rstrip(b'\0').decode(errors='replace') for row in gather(mine)
  ]
