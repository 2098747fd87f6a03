"""From ids to logits: users in batches, padded to what programs are for."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from dare_jax.bundle import calls as calls_lib
from dare_jax.bundle import program_shapes
from dare_jax.bundle import requests as requests_lib

Ids = requests_lib.Ids
State = requests_lib.State
Request = requests_lib.Request
Scores = requests_lib.Scores
TIME = requests_lib.TIME


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Returns 1 / (1 + exp(-logit)), in float64, without overflow.

  >>> probabilities(np.float32([-1000, 0, 1000]))
  array([0. , 0.5, 1. ])
  """
  return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


@dataclasses.dataclass(frozen=True)
class Options:
  """The entries of a manifest that decide how users are scored.

  Attributes:
    top_k: number of behaviors that the model keeps.
    has_cached_keys: whether a state holds keys: they are searched, then what
      was found is scored.
    keeps_all: whether the model keeps all behaviors.
    scores_alone: whether the logits of a request depend on all of its
      candidates, as batch statistics do, so that it has a call of its own.
    slot_fields: names of the fields whose ids a search reads by slot.
    has_gaps: whether a search takes the times of behaviors and moments.
  """

  top_k: int
  has_cached_keys: bool
  keeps_all: bool
  scores_alone: bool
  slot_fields: tuple[str, ...] = ()
  has_gaps: bool = False


class Scorer:
  """Scores requests with the programs of a bundle."""

  def __init__(
    self,
    options: Options,
    shapes: program_shapes.ProgramShapes,
    calls: calls_lib.Calls,
  ) -> None:
    self._options = options
    self._shapes = shapes
    self._calls = calls

  def encode(self, version: str, history: Ids) -> State:
    """Returns the state of a history."""
    capacity = self._shapes.capacity(len(next(iter(history.values()))))
    state = State(version, history, capacity, capacity - 1)
    if not self._options.has_cached_keys:
      return state
    ids, count = requests_lib.windows([state], 1, capacity)
    made = self._calls('encode_history', (1, capacity), ids, count)
    return dataclasses.replace(state, keys=_kept(made['keys']))

  def expand(self, state: State) -> State:
    """Returns a compact state with its keys, the same as before."""
    if state.keys is not None or not self._options.has_cached_keys:
      return state
    return self.encode(state.version, state.ids)

  def encode_together(
    self, version: str, histories: Sequence[Ids]
  ) -> list[State]:
    """Returns states that share memory, for one call of `score`."""
    states = []
    for ids in histories:
      capacity = self._shapes.capacity(len(next(iter(ids.values()))))
      states.append(State(version, ids, capacity, capacity - 1))
    if not self._options.has_cached_keys:
      return states
    for capacity in {state.capacity for state in states}:
      members = [i for i, s in enumerate(states) if s.capacity == capacity]
      taken = iter(members)
      for users, batch in self._shapes.encodings(len(members), capacity):
        places = [next(taken) for _ in range(users)]
        ids, count = requests_lib.windows(
          [states[i] for i in places], batch, capacity
        )
        made = self._calls('encode_history', (batch, capacity), ids, count)
        keys = _kept(made['keys'])
        for row, i in enumerate(places):
          own = keys[row : row + 1]
          states[i] = dataclasses.replace(states[i], keys=own)
    return states

  def append(
    self, state: State, behavior: Mapping[str, int], length: int
  ) -> State:
    """Returns the state with one more behavior.

    Args:
      state: the history of a user.
      behavior: field -> id, with 'time' where the model has real time.
      length: how many behaviors are kept at most.
    """
    ids = {
      field: np.append(old, np.int32(behavior[field]))[-length:]
      for field, old in state.ids.items()
    }
    if len(state) == state.capacity < self._shapes.capacities[-1]:
      return self.encode(state.version, ids)
    if state.keys is None:
      return self.encode(state.version, ids)
    old = {
      'keys': state.keys,
      'newest': np.array([state.newest], np.int32),
      'count': np.array([len(state)], np.int32),
    }
    new = {f: np.array([behavior[f]], np.int32) for f in state.ids}
    made = self._calls('append', (1, state.capacity), old, new)
    newest = (state.newest + 1) % state.capacity
    keys = _kept(made['keys'])
    return dataclasses.replace(state, ids=ids, newest=newest, keys=keys)

  def score(self, requests: Sequence[Request], explain: bool) -> list[Scores]:
    """Returns the scores of each request's candidates."""
    parts: list[tuple[int, Request]] = []
    groups: dict[tuple[int, int], list[int]] = {}
    for place, request in enumerate(requests):
      capacity = request.state.capacity
      size = self._shapes.candidates(len(request), capacity)
      alone = self._options.scores_alone and size < len(request)
      if alone:
        size = 1 << (len(request) - 1).bit_length()
      for part in request.parts(size):
        groups.setdefault((capacity, size), []).append(len(parts))
        parts.append((place, part))
    found: list[Scores | None] = [None] * len(parts)
    for (capacity, size), members in groups.items():
      taken = iter(members)
      for users, batch in self._turns(len(members), size, capacity):
        places = [next(taken) for _ in range(users)]
        shape = program_shapes.Shape(batch, size, capacity)
        scores = self._batch([parts[i][1] for i in places], shape, explain)
        for i, one in zip(places, scores, strict=True):
          found[i] = one
    joined: list[list[Scores]] = [[] for _ in requests]
    for (place, _), scored in zip(parts, found, strict=True):
      assert scored is not None
      joined[place].append(scored)
    return [requests_lib.joined(some) for some in joined]

  def _turns(
    self, users: int, candidates: int, capacity: int
  ) -> Iterator[tuple[int, int]]:
    if not self._options.scores_alone:
      yield from self._shapes.batches(users, candidates, capacity)
      return
    for _ in range(users):
      yield 1, 1

  def _batch(
    self,
    requests: Sequence[Request],
    shape: program_shapes.Shape,
    explain: bool,
  ) -> list[Scores]:
    """Scores requests in one call of the programs."""
    targets, real, context = requests_lib.inputs(requests, shape)
    states = [request.state for request in requests]
    ids, count = requests_lib.windows(states, shape.batch, shape.capacity)
    asked = targets, real, context
    if self._options.has_cached_keys:
      keys = requests_lib.searched(states, count)
      for field in self._options.slot_fields:
        keys[f'ids/{field}'] = requests_lib.by_slot(states, shape, field)
      if self._options.has_gaps:
        keys |= {
          TIME: requests_lib.by_slot(states, shape, TIME),
          'now': context[TIME],
        }
      made = self._calls.search_and_score(shape.sizes, keys, ids, *asked)
    else:
      made = self._calls('predict', shape.sizes, ids, count, *asked)
    logit = np.asarray(made['logit'])
    own = [logit[i, : len(r)] for i, r in enumerate(requests)]
    if not explain:
      return [Scores(one) for one in own]
    return self._explained(requests, own, made)

  def _explained(
    self,
    requests: Sequence[Request],
    logits: Sequence[np.ndarray],
    made: Any,
  ) -> list[Scores]:
    weight = np.asarray(made['weight'])
    result = []
    for i, request in enumerate(requests):
      own = weight[i, : len(request)]
      if self._options.keeps_all:
        part = _heaviest(own, len(request.state), self._options.top_k)
      else:
        distance = np.asarray(made['distance'])[i, : len(request)]
        mask = np.asarray(made['mask'])[i, : len(request)]
        # Padding that takes part is no behavior.
        mask = mask & (distance <= len(request.state))
        part = np.where(mask, distance, 0), np.where(mask, own, 0), mask
      distance, own, mask = part
      own = own.astype(np.float32)
      result.append(Scores(logits[i], distance, own, mask))
    return result


def _kept(keys: Any) -> Any:
  """Returns keys as states hold them.

  On a CPU for NumPy, without a copy; elsewhere on the device. Always in one
  way: a program is compiled once for each, and that after a request has come.
  """
  import jax

  return np.asarray(keys) if jax.default_backend() == 'cpu' else keys


def _heaviest(
  weight: np.ndarray, length: int, top_k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns distance, weight and mask of the behaviors that weigh most.

  Args:
    weight: float [c, slots], the weights of right-aligned histories.
    length: number of behaviors in the history.
    top_k: behaviors to return.
  """
  order = np.argsort(-weight[:, ::-1], axis=1, kind='stable')[:, :top_k]
  distance = order.astype(np.int32) + 1
  mask = distance <= length
  kept = np.take_along_axis(weight[:, ::-1], order, axis=1)
  return np.where(mask, distance, 0), np.where(mask, kept, 0), mask
