"""Users with candidates to score: as objects, and as arrays of one shape."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from dare_jax.bundle import program_shapes

Ids = Mapping[str, np.ndarray]
# Of behaviors and of moments, of a model with real time: among the fields.
TIME = 'time'


@dataclasses.dataclass(frozen=True)
class State:
  """A user's history, ready to be searched; of one version of a bundle.

  Attributes:
    version: the version of the bundle that made the state.
    ids: field -> int32 [n], ids of the behaviors that count, oldest first.
    capacity: number of slots.
    newest: the slot of the most recent behavior.
    keys: the keys that are searched, [1, d, slots]; None in a compact state,
      and where the model needs the history itself.
  """

  version: str
  ids: Ids
  capacity: int
  newest: int
  keys: Any = None

  def __len__(self) -> int:
    return len(next(iter(self.ids.values())))

  @property
  def nbytes(self) -> int:
    """Bytes that it takes in memory."""
    own = 0 if self.keys is None else self.keys.nbytes
    return own + sum(ids.nbytes for ids in self.ids.values())

  def compact(self) -> State:
    """Returns the state without its keys, far smaller; see `Scorer.expand`."""
    return self if self.keys is None else dataclasses.replace(self, keys=None)


@dataclasses.dataclass(frozen=True)
class Scores:
  """The scores of a user's candidates.

  Attributes:
    logit: float32 [c], the logit of each candidate.
    distance: int32 [c, k], how many behaviors back each behavior found lies, 1
      the most recent; 0 where `mask` is False. Distance, weight and mask are
      None unless an explanation was asked for.
    weight: float32 [c, k], the weight of each behavior found.
    mask: bool [c, k], False where fewer than k were found.
  """

  logit: np.ndarray
  distance: np.ndarray | None = None
  weight: np.ndarray | None = None
  mask: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Request:
  """A user with some candidates.

  Attributes:
    state: the state of the user.
    candidates: field -> int32 [c], at least one.
    context: field -> id.
  """

  state: State
  candidates: Ids
  context: Mapping[str, int]

  def __len__(self) -> int:
    return len(next(iter(self.candidates.values())))

  def parts(self, size: int) -> Iterator[Request]:
    """Yields requests of at most `size` candidates each."""
    for first in range(0, len(self), size):
      part = {f: x[first : first + size] for f, x in self.candidates.items()}
      yield dataclasses.replace(self, candidates=part)


def searched(states: Sequence[State], count: np.ndarray) -> dict[str, Any]:
  """Returns the keys of states as programs search them: arrays by name.

  Args:
    states: the states of the users, at most as many as `count` has elements.
    count: int32 [b], number of behaviors of each user; the elements behind the
      last user fill up.
  """
  spare = len(count) - len(states)
  newest = [state.newest for state in states] + [0] * spare
  keys = [state.keys for state in states]
  return {
    'keys': _stacked([*keys, *keys[:1] * spare]),
    'newest': np.array(newest, np.int32),
    'count': count,
  }


def by_slot(
  states: Sequence[State], shape: program_shapes.Shape, field: str
) -> np.ndarray:
  """Returns ids of a field as the keys of states lie: int32 [batch, slots].

  Args:
    states: the states of the users, at most `shape.batch`.
    shape: users, and slots of each; rows behind the last user are zeros.
    field: the field, or `TIME`.
  """
  ids = np.zeros((shape.batch, shape.capacity), np.int32)
  for row, state in enumerate(states):
    own, end = state.ids[field], state.newest + 1
    first = max(len(own) - end, 0)
    ids[row, end - len(own) + first : end] = own[first:]
    # Behind its last slot the ring continues at the first.
    ids[row, shape.capacity - first :] = own[:first]
  return ids


def _stacked(keys: Sequence[Any]) -> Any:
  """Returns the keys of users as one array, where they are."""
  if len(keys) == 1:
    return keys[0]
  if isinstance(keys[0], np.ndarray):
    return np.concatenate(keys)
  import jax

  return jax.numpy.concatenate(keys)


def windows(
  states: Sequence[State], batch: int, capacity: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Returns histories as programs take them, and how long each is.

  Args:
    states: the states of the users, at most `batch`.
    batch: number of rows; those behind the last user are zeros.
    capacity: number of slots.

  Returns:
    field -> int32 [batch, capacity], the most recent behavior last; and int32
    [batch].
  """
  count = np.zeros(batch, np.int32)
  fields = states[0].ids
  ids = {field: np.zeros((batch, capacity), np.int32) for field in fields}
  for row, state in enumerate(states):
    count[row] = length = len(state)
    for field, own in state.ids.items():
      ids[field][row, capacity - length :] = own
  return ids, count


def inputs(
  requests: Sequence[Request], shape: program_shapes.Shape
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
  """Returns the candidates of requests as programs take them.

  Args:
    requests: at most `shape.batch`.
    shape: users, and candidates of each.

  Returns:
    field -> int32 [batch, candidates]; bool [batch, candidates], False for
    those that fill up; and the context, field -> int32 [batch].
  """
  size = (shape.batch, shape.candidates)
  real = np.zeros(size, bool)
  targets = {f: np.zeros(size, np.int32) for f in requests[0].candidates}
  context = {f: np.zeros(shape.batch, np.int32) for f in requests[0].context}
  for row, request in enumerate(requests):
    real[row, : len(request)] = True
    for field, ids in request.candidates.items():
      targets[field][row, : len(request)] = ids
    for field, value in request.context.items():
      context[field][row] = value
  return targets, real, context


def joined(parts: Sequence[Scores]) -> Scores:
  """Returns the scores of a request that was cut into parts."""
  if len(parts) == 1:
    return parts[0]
  if parts[0].distance is None:
    return Scores(np.concatenate([part.logit for part in parts]))
  rows = [dataclasses.astuple(part) for part in parts]
  return Scores(*(np.concatenate(some) for some in zip(*rows, strict=True)))
