"""Events of a user, as columns: what stores keep and the model is shown."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np

KEY_BYTES = 16
Raw = str | int | float | None


def key_of(event_id: str | int) -> bytes:
  """Returns what stands for an event id: 16 bytes, whatever its length.

  5 and '5' are the same id.
  """
  text = str(event_id).encode()
  return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


@dataclasses.dataclass(frozen=True)
class Events:
  """n events, in the order of `times` wherever a store returns them.

  Attributes:
    keys: the ids of the events, 16 bytes each, joined.
    times: int64 [n], the time of each event.
    values: field -> n raw values.
  """

  keys: bytes
  times: np.ndarray
  values: Mapping[str, Sequence[Raw]]

  def __len__(self) -> int:
    return len(self.times)

  @classmethod
  def make(
    cls,
    ids: Iterable[str | int],
    times: Sequence[int],
    values: Mapping[str, Sequence[Raw]],
  ) -> Events:
    keys = b''.join(key_of(one) for one in ids)
    return cls(keys, np.asarray(times, np.int64), values)

  @classmethod
  def none(cls) -> Events:
    return cls(b'', np.zeros(0, np.int64), {})

  def key_list(self) -> list[bytes]:
    return split_keys(self.keys)

  def take(self, places: Iterable[int]) -> Events:
    """Returns some events, in the order of `places`."""
    chosen = [int(place) for place in places]
    keys = self.key_list()
    return Events(
      b''.join(keys[place] for place in chosen),
      self.times[np.asarray(chosen, np.int64)],
      {
        field: [column[place] for place in chosen]
        for field, column in self.values.items()
      },
    )

  def cut(self, begin: int, end: int | None = None) -> Events:
    """Returns the events from `begin` up to `end`."""
    end = len(self) if end is None else end
    return Events(
      self.keys[begin * KEY_BYTES : end * KEY_BYTES],
      self.times[begin:end],
      {field: column[begin:end] for field, column in self.values.items()},
    )

  def column(self, field: str) -> Sequence[Raw]:
    """Returns the values of a field; None for all, if the events lack it."""
    return self.values.get(field, [None] * len(self))


def join(parts: Sequence[Events]) -> Events:
  """Returns events one after the other; a field that a part lacks is None."""
  fields: dict[str, list[Any]] = {
    field: [] for part in parts for field in part.values
  }
  for field, column in fields.items():
    for part in parts:
      column.extend(part.column(field))
  times = [part.times for part in parts]
  return Events(
    b''.join(part.keys for part in parts),
    np.concatenate(times) if times else np.zeros(0, np.int64),
    fields,
  )


def split_keys(joined: bytes) -> list[bytes]:
  starts = range(0, len(joined), KEY_BYTES)
  return [joined[start : start + KEY_BYTES] for start in starts]
