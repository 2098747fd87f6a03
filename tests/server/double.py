"""A bundle for tests of all but the model: scores from ids, by NumPy.

The logit of a candidate is the weighted mean of its item's distance from those
of the last `top_k` behaviors of its category; the weights are equal.

    python -m tests.server.double --bundle=DIR ...

serves the one that DIR/manifest.json describes.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import runpy
import time
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.bundle import reading
from dare_jax.bundle import times as times_lib

UNKNOWN = 1


@dataclasses.dataclass(frozen=True)
class State:
  ids: dict[str, np.ndarray]
  version: str

  @property
  def nbytes(self) -> int:
    return sum(column.nbytes for column in self.ids.values())

  def compact(self) -> State:
    return self


@dataclasses.dataclass(frozen=True)
class Scores:
  logit: np.ndarray
  distance: np.ndarray | None = None
  weight: np.ndarray | None = None
  mask: np.ndarray | None = None


class Double:
  """Knows items 'i0' to 'i99' and categories 'c0' to 'c9', ids from 2 on."""

  history_length, top_k, unknown_id = 20, 3, UNKNOWN
  real_time: tuple[str, ...] = ()
  times: times_lib.Times | None = None

  def __init__(
    self,
    version: str = 'v1',
    fields: tuple[str, ...] = ('item', 'category'),
    context_fields: tuple[str, ...] = (),
    sets: Mapping[str, str] | None = None,
    user_fields: tuple[str, ...] = (),
    prefix: str = '',
    delay_s: float = 0.0,
    name: str = 'double',
  ) -> None:
    self.name = name
    self.version, self.fields = version, fields
    self.context_fields, self.sets = context_fields, sets or {}
    self.user_fields = user_fields
    self.delay_s = delay_s
    self.scale = 1.0 + sum(version.encode()) / 1000
    self.appended = self.encoded = self.calls = 0
    self._known = {
      field: {f'{prefix}{field[0]}{n}': n + 2 for n in range(100)}
      for field in (*fields, *context_fields)
    }

  def known_values(self, field: str, count: int) -> list[str]:
    return list(self._known[field])[:count]

  def of_users(self, field: str, users: Any) -> np.ndarray:
    """User 'u5' has the id of 'w5', another one the unknown id."""
    return self.ids(field, [f'{field[0]}{str(u)[1:]}' for u in users])

  def ids(self, field: str, raw: Any) -> np.ndarray:
    if any(isinstance(value, float) for value in raw):
      raise errors.UsageError(f'raw values of {field!r}: a float')
    known = self._known[field]
    found = [known.get(str(value), UNKNOWN) for value in raw]
    return np.array(found, np.int32)

  def unknown(self, field: str, ids: np.ndarray) -> np.ndarray:
    return ids == UNKNOWN

  def encode(self, history: dict[str, np.ndarray]) -> State:
    self.encoded += 1
    last = {f: ids[-self.history_length :] for f, ids in history.items()}
    return State(last, self.version)

  def expand(self, state: State) -> State:
    return state

  def append(self, state: State, behavior: dict[str, int]) -> State:
    assert state.version == self.version
    self.appended += 1
    joined = {
      field: np.append(ids, np.int32(behavior[field]))
      for field, ids in state.ids.items()
    }
    return State(
      {f: ids[-self.history_length :] for f, ids in joined.items()},
      self.version,
    )

  def score(self, histories, candidates, contexts, explain=False):
    self.calls += 1
    time.sleep(self.delay_s)
    contexts = contexts or [{}] * len(histories)
    return [
      self._score(self._ids(history), one, context or {}, explain)
      for history, one, context in zip(
        histories, candidates, contexts, strict=True
      )
    ]

  def _ids(self, history: Any) -> dict[str, np.ndarray]:
    if not isinstance(history, State):
      return {f: ids[-self.history_length :] for f, ids in history.items()}
    assert history.version == self.version
    return history.ids

  def _score(self, history, candidates, context, explain) -> Scores:
    count, last = len(candidates['item']), self.fields[-1]
    distance = np.zeros((count, self.top_k), np.int32)
    logit = np.zeros(count, np.float32)
    for row in range(count):
      alike = np.flatnonzero(history[last] == candidates[last][row])
      found = alike[::-1][: self.top_k]
      distance[row, : len(found)] = len(history['item']) - found
      gaps = candidates['item'][row] - history['item'][found]
      if len(found):
        logit[row] = self.scale * np.mean(gaps) / 10
    context = dict(context)
    if self.real_time and len(history['time']):
      logit += np.float32((context['time'] - history['time'][-1]) / 3600)
    context.pop('time', None)
    logit += np.float32(sum(map(float, context.values())))
    if not explain:
      return Scores(logit)
    mask = distance > 0
    weight = mask / np.maximum(mask.sum(1, keepdims=True), 1)
    return Scores(logit, distance, weight.astype(np.float32), mask)

  def warm_up(self, shapes: Any = None) -> None:
    time.sleep(self.delay_s)


class Timed(Double):
  """Adds the hours since the last behavior to logits."""

  def __init__(self, times: times_lib.Times, name: str = 'double') -> None:
    super().__init__(name=name)
    self.times, self.real_time = times, ('gap',)


def write(folder: pathlib.Path, **fields: Any) -> pathlib.Path:
  """Writes what `open_double` opens."""
  folder.mkdir(exist_ok=True)
  (folder / 'manifest.json').write_text(json.dumps(fields))
  return folder


def open_double(path: str) -> Double:
  try:
    fields = json.loads((pathlib.Path(path) / 'manifest.json').read_text())
  except OSError as error:
    raise errors.UsageError(f'{path}: no bundle: {error}') from None
  for name in ('fields', 'context_fields'):
    if name in fields:
      fields[name] = tuple(fields[name])
  return Double(**fields)


def main() -> None:
  """Runs the command with `open_double` in place of that of a bundle."""
  reading.open = open_double
  runpy.run_module('dare_jax.serve', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
