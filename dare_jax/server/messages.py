"""Bodies of requests and answers, made for the fields of a bundle.

One description of each serves to decode, to check and to document: the types
that `Messages` makes are also the schemas of `/openapi.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import functools
import re
import time
from typing import Annotated
from typing import Any
from typing import Literal

import msgspec
import numpy as np

from dare_jax import errors
from dare_jax.bundle import times as times_lib
from dare_jax.logs.values import set_values
from dare_jax.server import events as events_lib
from dare_jax.server import problems

MOST_TEXT = 256
_INT64 = msgspec.Meta(ge=-(2**63), le=2**63 - 1)
_Whole = Annotated[int, _INT64]
Raw = Annotated[str, msgspec.Meta(max_length=MOST_TEXT)] | _Whole | float | None
Time = Annotated[str, msgspec.Meta(max_length=MOST_TEXT)] | _Whole | float
# A set: a list of members, or text with what stands between them.
_SetText = Annotated[str, msgspec.Meta(max_length=16 * MOST_TEXT)]
RawSet = (
  _SetText
  | _Whole
  | float
  | Annotated[list[Raw], msgspec.Meta(max_length=set_values.MOST_IN_A_SET)]
  | None
)
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_TEXT)] | _Whole
# Names that every event and every found behavior uses itself.
RESERVED = ('event_id', 'time', 'position', 'weight')
Columns = dict[str, list[Any]]
# Message types whose fields are known only when a bundle is open.
_annotated: Any = Annotated
_list: Any = list
_literal: Any = Literal


class Error(msgspec.Struct):
  """What is wrong, and with which field ('' for none)."""

  field: str
  message: str


class ErrorAnswer(msgspec.Struct):
  error: Error


class Kept(msgspec.Struct):
  """What became of events that were sent: each is one of these.

  `duplicates` have an id that the user has; `expired` are older than what is
  kept of the user.
  """

  accepted: int
  duplicates: int
  expired: int


class Deleted(msgspec.Struct):
  deleted: bool


class Users(msgspec.Struct):
  users: list[str]


class Messages:
  """The types of a bundle with some fields.

  Attributes:
    ScoreRequest, EventsRequest, PredictRequest, ScoreAnswer, PredictAnswer:
      bodies.
    Candidate, Behavior, Context, Score, Found: the message types that those are
      made of.
  """

  def __init__(
    self,
    fields: Sequence[str],
    context_fields: Sequence[str],
    max_candidates: int,
    sets: Mapping[str, str] | None = None,
    user_fields: Sequence[str] = (),
    times: times_lib.Times | None = None,
  ) -> None:
    """Makes them.

    Args:
      fields: of a behavior and of a candidate.
      context_fields: of a request.
      max_candidates: of a request.
      sets: field -> separator, of those whose values are `set_values`.
      user_fields: context fields that a request may leave out.
      times: the times of the log; None: a server whose models read none.
    """
    self._sets = dict(sets or {})
    self.fields = tuple(fields)
    self.max_candidates = max_candidates
    self.times = times
    self._attributes = {f'field_{n}': name for n, name in enumerate(fields)}
    values: list[tuple[str, Any]] = [
      (attribute, RawSet if name in self._sets else Raw)
      for attribute, name in self._attributes.items()
    ]
    time = ('time', (_Whole if times is None else Time) | None, None)
    self.Candidate = candidate = self._struct('Candidate', values)
    self.Behavior = behavior = self._struct('Behavior', [*values, time])
    event = self._struct('Event', [('event_id', Id), *values, time])
    # Those that may be left out come last.
    asked = [field for field in context_fields if field not in user_fields]
    self.context_fields = (*asked, *user_fields)
    self.Context = context = self._context_type(user_fields)
    shown = msgspec.Meta(min_length=1, max_length=max_candidates)
    self.ScoreRequest = msgspec.defstruct(
      'ScoreRequest',
      [
        ('candidates', _annotated[_list[candidate], shown]),
        ('user_id', Id | msgspec.UnsetType, msgspec.UNSET),
        ('history', _list[behavior] | msgspec.UnsetType, msgspec.UNSET),
        ('explain', bool, False),
        ('model', str, ''),
        *([] if times is None else [time]),
        (
          ('context', context)
          if asked
          else ('context', context, msgspec.field(default_factory=context))
        ),
      ],
      forbid_unknown_fields=True,
      kw_only=True,
    )
    at_least_one = msgspec.Meta(min_length=1)
    self.EventsRequest = msgspec.defstruct(
      'EventsRequest',
      [('events', _annotated[_list[event], at_least_one])],
      forbid_unknown_fields=True,
    )
    self.PredictRequest = msgspec.defstruct(
      'PredictRequest',
      [
        ('instances', _annotated[_list[self.ScoreRequest], at_least_one]),
        ('signature_name', str, ''),
      ],
    )
    self._answers(values)

  def _context_type(self, user_fields: Sequence[str]) -> Any:
    names = {f'field_{n}': f for n, f in enumerate(self.context_fields)}
    unset = (Raw | msgspec.UnsetType, msgspec.UNSET)
    return msgspec.defstruct(
      'Context',
      [
        (name, *(unset if field in user_fields else (Raw,)))
        for name, field in names.items()
      ],
      rename=names or None,
      forbid_unknown_fields=True,
    )

  def _answers(self, values: list[tuple[str, Any]]) -> None:
    places = [('position', int), ('weight', float)]
    kind = _Whole if self.times is None else Time
    self.Found = self._struct(
      'Found', [*values, ('time', kind | None), *places]
    )
    names = self.fields
    self.Score = msgspec.defstruct(
      'Score',
      [
        ('logit', float),
        ('probability', float),
        ('unknown', _list[_literal[names]]),
        ('found', _list[self.Found] | msgspec.UnsetType, msgspec.UNSET),
      ],
    )
    answer = [
      ('model', str),
      ('version', str),
      ('behaviors', int),
      ('unknown', dict[str, int]),
      ('scores', _list[self.Score]),
    ]
    self.ScoreAnswer = msgspec.defstruct('ScoreAnswer', answer)
    self.PredictAnswer = msgspec.defstruct(
      'PredictAnswer', [('predictions', _list[self.ScoreAnswer])]
    )

  def _struct(self, name: str, fields: list[Any]) -> Any:
    return msgspec.defstruct(
      name, fields, rename=self._attributes, forbid_unknown_fields=True
    )

  def decode(self, kind: str, body: bytes) -> Any:
    """Returns a request.

    Raises:
      Problem: 400, naming the field.
    """
    return decode(self._decoder(kind), body)

  @functools.cache  # noqa: B019  As long-lived as the bundle.
  def _decoder(self, kind: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(getattr(self, kind))

  def columns(self, rows: Sequence[Any]) -> Columns:
    """Returns field -> values of decoded candidates, behaviors or events.

    Sets have their names.

    Raises:
      Problem: 400: a member of a list holds the separator.
    """
    found = {
      name: [getattr(row, attribute) for row in rows]
      for attribute, name in self._attributes.items()
    }
    for name, separator in self._sets.items():
      try:
        found[name] = set_values.labels(found[name], separator)
      except errors.UsageError as error:
        raise problems.bad(name, str(error)) from None
    return found

  def context(self, request: Any) -> dict[str, Any]:
    """Returns field -> value of the context fields that a request gives."""
    values = msgspec.structs.astuple(request.context)
    pairs = zip(self.context_fields, values, strict=True)
    return {field: x for field, x in pairs if x is not msgspec.UNSET}

  def events(self, rows: Sequence[Any]) -> events_lib.Events:
    """Returns decoded events; those without a time are of now.

    Raises:
      Problem: 400: a time that is none.
    """
    now = int(time.time()) if self.times is None else self.times.now()
    times = [now if t is None else t for t in self.ticks('events', rows)]
    ids = [row.event_id for row in rows]
    return events_lib.Events.make(ids, times, self.columns(rows))

  def ticks(self, side: str, rows: Sequence[Any]) -> list[int | None]:
    """Returns when behaviors or events were: ticks, where times are read.

    Raises:
      Problem: 400: a time that is none.
    """
    return self._ticks(f'{side}[].time', [row.time for row in rows])

  def moment(self, request: Any) -> int:
    """Returns the tick of which a request asks, by default now.

    Raises:
      Problem: 400: a time that is none.
    """
    (tick,) = self._ticks('time', [request.time])
    if tick is not None:
      return tick
    assert self.times is not None
    return self.times.now()

  def _ticks(self, field: str, told: list[Any]) -> list[int | None]:
    try:
      return told if self.times is None else self.times.ticks(told)
    except errors.UsageError as error:
      raise problems.bad(field, str(error)) from None

  def shown(self, times: np.ndarray) -> Sequence[float | None]:
    """Returns times of events, such as those of `ticks`, for an answer."""
    told = times.tolist()
    return told if self.times is None else self.times.shown(told)


def decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
  """Returns what a body holds.

  Raises:
    Problem: 400, naming the field.
  """
  try:
    return decoder.decode(body)
  except msgspec.ValidationError as error:
    raise problems.bad(*_explain(str(error))) from None
  except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
    raise problems.bad('', f'the body is no JSON: {error}') from None


def _explain(text: str) -> tuple[str, str]:
  """Returns the field and the message of an error of msgspec."""
  message, _, path = text.partition(' - at `')
  field = re.sub(r'^\$\.?', '', path.rstrip('`'))
  inner = re.search(r'(?:missing required|unknown) field `(.*)`', message)
  if inner:
    field = f'{field}.{inner[1]}' if field else inner[1]
  return field, message
