"""From a decoded request to an answer: history, ids, scores, explanation."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import msgspec
import numpy as np

from dare_jax import errors
from dare_jax.bundle import requests as requests_lib
from dare_jax.bundle import scoring
from dare_jax.server import batching
from dare_jax.server import metrics as metrics_lib
from dare_jax.server import problems
from dare_jax.server import served as served_lib
from dare_jax.server import states as states_lib

# Users of one request that share a call.
_MOST_TOGETHER = 16


@dataclasses.dataclass(frozen=True)
class Scored:
  """A request that was scored.

  Attributes:
    scores: the scores, as `Bundle.score` returns them.
    unknown: field -> bool [c].
    shown: the history that was scored with.
  """

  scores: Any
  unknown: dict[str, np.ndarray]
  shown: states_lib.Shown


@dataclasses.dataclass(frozen=True)
class _Prepared:
  item: batching.Item
  unknown: dict[str, np.ndarray]
  shown: states_lib.Shown


class Scorer:
  """Scores requests in the thread that calls it, or with those of others."""

  def __init__(
    self,
    states: states_lib.States,
    batcher: batching.Batcher,
    metrics: metrics_lib.Metrics,
  ) -> None:
    self._states, self._batcher, self._metrics = states, batcher, metrics

  def answer(self, served: served_lib.Served, request: Any) -> Any:
    """Returns the `ScoreAnswer` of a `ScoreRequest`.

    Raises:
      Problem: the request is wrong.
      StoreError: as the store says.
    """
    scored = self.score(served, request)
    with self._metrics.stage('answer'):
      return _answer(served, scored)

  def answers(
    self, served: served_lib.Served, requests: Sequence[Any]
  ) -> list[Any]:
    """Returns the `ScoreAnswer` of each of several requests."""
    return [_answer(served, one) for one in self.score_many(served, requests)]

  def score(self, served: served_lib.Served, request: Any) -> Scored:
    """Returns the scores of one request; see `answer`."""
    prepared = self._prepare(served, request)
    with self._metrics.stage('score'):
      scores = self._batcher.score(prepared.item)
    return Scored(scores, prepared.unknown, prepared.shown)

  def score_many(
    self, served: served_lib.Served, requests: Sequence[Any]
  ) -> list[Scored]:
    """Returns the scores of requests, those alike in shared calls."""
    prepared = [self._prepare(served, request) for request in requests]
    scored: list[Scored | None] = [None] * len(prepared)
    kinds = [one.item.kind() for one in prepared]
    for kind in dict.fromkeys(kinds):
      places = [place for place, own in enumerate(kinds) if own == kind]
      for start in range(0, len(places), _MOST_TOGETHER):
        group = places[start : start + _MOST_TOGETHER]
        with self._metrics.stage('score'):
          found = batching.score([prepared[place].item for place in group])
        for place, scores in zip(group, found, strict=True):
          one = prepared[place]
          scored[place] = Scored(scores, one.unknown, one.shown)
    return [one for one in scored if one is not None]

  def _prepare(self, served: served_lib.Served, request: Any) -> _Prepared:
    """Reads the history and looks up the ids."""
    has_user = request.user_id is not msgspec.UNSET
    if has_user == (request.history is not msgspec.UNSET):
      raise problems.bad(
        'user_id', 'expected either user_id or history, and not both'
      )
    with self._metrics.stage('state'):
      if has_user:
        shown = self._states.of_user(
          served, str(request.user_id), request.explain
        )
      else:
        shown = self._states.of_request(
          served, request.history, request.explain
        )
    with self._metrics.stage('ids'):
      columns = served.messages.columns(request.candidates)
      ids = states_lib.ids_of(served.bundle, 'candidates', columns)
      unknown = self._states.count_unknown(served, 'candidates', ids)
      context = _context(served, request)
    item = batching.Item(
      served.bundle, shown.state, ids, context, request.explain
    )
    self._metrics.candidates.inc(len(request.candidates))
    return _Prepared(item, unknown, shown)


def _context(served: served_lib.Served, request: Any) -> dict[str, np.ndarray]:
  """Returns the ids of the context's fields, and the time if it is read."""
  found = {}
  if served.bundle.real_time:
    tick = served.messages.moment(request)
    found[requests_lib.TIME] = served.times.seconds(np.array([tick]))[0]
  for field, value in served.messages.context(request).items():
    try:
      found[field] = served.bundle.ids(field, [value])[0]
    except errors.UsageError as error:
      raise problems.bad(f'context.{field}', str(error)) from None
  user = None if request.user_id is msgspec.UNSET else request.user_id
  for field in served.bundle.user_fields:
    if field not in found:
      found[field] = served.bundle.of_users(field, [user])[0]
  return found


def _answer(served: served_lib.Served, scored: Scored) -> Any:
  """Returns the `ScoreAnswer`."""
  messages, bundle = served.messages, served.bundle
  logits = np.asarray(scored.scores.logit, np.float32)
  chances = scoring.probabilities(logits).tolist()
  unknown = _unknown_fields(scored.unknown, len(logits))
  found: Sequence[Any] = [msgspec.UNSET] * len(logits)
  if scored.shown.events is not None:
    found = explain(served, scored)
  scores = [
    messages.Score(*one)
    for one in zip(logits.tolist(), chances, unknown, found, strict=True)
  ]
  counts = {field: int(flags.sum()) for field, flags in scored.unknown.items()}
  return messages.ScoreAnswer(
    bundle.name, bundle.version, scored.shown.length, counts, scores
  )


def _unknown_fields(
  unknown: dict[str, np.ndarray], count: int
) -> list[list[str]]:
  """Returns the names of the unknown fields of each candidate."""
  if not any(flags.any() for flags in unknown.values()):
    return [[]] * count
  rows = zip(*[flags.tolist() for flags in unknown.values()], strict=True)
  return [
    [field for field, flag in zip(unknown, row, strict=True) if flag]
    for row in rows
  ]


def explain(served: served_lib.Served, scored: Scored) -> list[list[Any]]:
  """Returns, for each candidate, the found behaviors, the weightiest first."""
  events = scored.shown.events
  assert events is not None
  fields = served.messages.fields
  columns = [events.column(field) for field in fields]
  times = served.messages.shown(events.times)
  scores = scored.scores
  weights = np.where(scores.mask, scores.weight, -1.0)
  order = np.argsort(-weights, axis=1, kind='stable')
  answers = []
  for row, places in enumerate(order):
    found = []
    for place in places[: int(np.sum(scores.mask[row]))]:
      distance = int(scores.distance[row, place])
      at = len(times) - distance
      found.append(
        served.messages.Found(
          *[column[at] for column in columns],
          times[at],
          distance,
          float(weights[row, place]),
        )
      )
    answers.append(found)
  return answers
