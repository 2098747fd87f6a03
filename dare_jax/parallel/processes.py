"""What several processes of one training tell each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from dare_jax import errors

T = TypeVar('T')
_MESSAGE_BYTES = 1024


def is_first() -> bool:
  """Whether this process writes the files and the screen."""
  return jax.process_index() == 0


def gather(array: np.ndarray) -> np.ndarray:
  """Returns everyone's array, the bytes unchanged: [processes, *shape].

  All processes call it at the same point, with the same shape and dtype.
  """
  array = np.ascontiguousarray(array)
  if jax.process_count() == 1:
    return array[None]
  bits = multihost_utils.process_allgather(array.reshape(-1).view(np.uint8))
  bits = np.ascontiguousarray(bits).reshape(jax.process_count(), -1)
  return bits.view(array.dtype).reshape(-1, *array.shape)


def any_of(flag: bool) -> bool:
  """Returns whether any process raises its flag; all get the same answer."""
  return bool(gather(np.array([flag])).any())


def agree_on(text: str, name: str) -> None:
  """Raises UsageError on all processes if `text` is not the same on all."""
  mine = np.zeros(_MESSAGE_BYTES, np.uint8)
  encoded = text.encode()[:_MESSAGE_BYTES]
  mine[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  everyone = gather(mine)
  for number, other in enumerate(everyone):
    if (other != everyone[0]).any():
      raise errors.UsageError(
        f'{name} of process {number} is {_text(other)!r}, that of process 0'
        f' {_text(everyone[0])!r}; all processes need the same.'
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
    _raise_first(failure)
  return result  # type: ignore[return-value]


def _raise_first(failure: str) -> None:
  """Raises a failure of any process on all of them."""
  message = np.zeros(_MESSAGE_BYTES, np.uint8)
  encoded = failure.encode()[:_MESSAGE_BYTES]
  message[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  for other in gather(message):
    if text := _text(other):
      raise errors.UsageError(text)


def _text(message: np.ndarray) -> str:
  return message.tobytes().rstrip(b'\0').decode(errors='replace')
