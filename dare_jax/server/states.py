"""What the model is shown of a user: the cached state, brought up to date."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.bundle import requests as requests_lib
from dare_jax.logs import derived_fields
from dare_jax.server import cache as cache_lib
from dare_jax.server import events as events_lib
from dare_jax.server import metrics as metrics_lib
from dare_jax.server import problems
from dare_jax.server import served as served_lib
from dare_jax.server import stores

# With more new events than this, the whole history is encoded again.
_MOST_APPENDED = 16
Ids = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shown:
  """A history as a model takes it.

  Attributes:
    state: the state of the user, for `Bundle.score`.
    length: how many behaviors are in it.
    events: these behaviors, where the answer is to explain; else None.
  """

  state: Any
  length: int
  events: events_lib.Events | None


def ids_of(bundle: Any, side: str, columns: Mapping[str, Sequence[Any]]) -> Ids:
  """Returns the ids of raw values.

  Raises:
    Problem: 400: a value that no log of the model could have.
  """
  found = {}
  for field in bundle.fields:
    try:
      values = columns[derived_fields.source(field)]
      found[field] = bundle.ids(field, values)
    except errors.UsageError as error:
      raise problems.bad(f'{side}[].{field}', str(error)) from None
  return found


class States:
  """Reads users' events and keeps what is made of them."""

  def __init__(self, store: stores.Store, metrics: metrics_lib.Metrics) -> None:
    self._store, self._metrics = store, metrics

  def of_user(
    self, served: served_lib.Served, user: str, explain: bool
  ) -> Shown:
    """Returns the history of a user.

    Raises:
      Problem: 404: the user has no events.
      StoreError: as the store says.
    """
    length = served.bundle.history_length
    if explain:
      found = self._store.read(user, length)
      head, events = (None, None) if found is None else found
    else:
      head, events = self._store.head(user), None
    if head is None:
      served.cache.discard(user)
      raise problems.Problem(404, 'user_id', 'no events of this user are kept')
    entry = served.cache.get(user)
    is_kin = entry is not None and entry.epoch == head.epoch
    if entry is not None and is_kin:
      behind = head.total - entry.total
      if behind == 0 or (behind < 0 and events is None):
        return self._hit(served, user, entry, events)
      if 0 < behind <= _MOST_APPENDED:
        updated = self._append(served, user, entry, head)
        if updated is not None and (
          events is None or updated.total == head.total
        ):
          return self._count('appended', updated, events)
    return self._encode(served, user, head, events, explain)

  def _hit(
    self,
    served: served_lib.Served,
    user: str,
    entry: cache_lib.Entry,
    events: events_lib.Events | None,
  ) -> Shown:
    """Returns the cached state; a compact one gets its keys again."""
    state = served.bundle.expand(entry.state)
    if state is entry.state:
      return self._count('hit', entry, events)
    entry = dataclasses.replace(entry, state=state)
    served.cache.put(user, entry)
    return self._count('expanded', entry, events)

  def _append(
    self,
    served: served_lib.Served,
    user: str,
    entry: cache_lib.Entry,
    head: stores.Head,
  ) -> cache_lib.Entry | None:
    """Returns the state with the events since; None if it must be made anew."""
    bundle = served.bundle
    found = self._store.read(user, head.total - entry.total)
    if found is None:
      return None
    head_now, events = found
    if (head_now.epoch, head_now.total) != (head.epoch, head.total):
      return None
    ids = _ids(served, events)
    state = entry.state
    for place in range(len(events)):
      one = {field: int(own[place]) for field, own in ids.items()}
      state = bundle.append(state, one)
    length = min(entry.length + len(events), bundle.history_length)
    made = cache_lib.Entry(head.epoch, head.total, length, state)
    served.cache.put(user, made)
    return made

  def _encode(
    self,
    served: served_lib.Served,
    user: str,
    head: stores.Head,
    events: events_lib.Events | None,
    explain: bool,
  ) -> Shown:
    bundle = served.bundle
    if events is None:
      found = self._store.read(user, bundle.history_length)
      if found is None:
        raise problems.Problem(404, 'user_id', 'this user was just deleted')
      head, events = found
    ids = _ids(served, events)
    self.count_unknown(served, 'history', ids)
    entry = cache_lib.Entry(
      head.epoch, head.total, len(events), bundle.encode(ids)
    )
    served.cache.put(user, entry)
    return self._count('encoded', entry, events if explain else None)

  def _count(
    self, result: str, entry: cache_lib.Entry, events: events_lib.Events | None
  ) -> Shown:
    self._metrics.states.labels(result).inc()
    return Shown(entry.state, entry.length, events)

  def of_request(
    self, served: served_lib.Served, rows: Sequence[Any], explain: bool
  ) -> Shown:
    """Returns the history that a request gives, oldest first."""
    bundle, messages = served.bundle, served.messages
    first = max(len(rows) - bundle.history_length, 0)
    rows = rows[first:]
    columns = messages.columns(rows)
    ids = ids_of(bundle, 'history', columns)
    self.count_unknown(served, 'history', ids)
    events = None
    if explain or bundle.real_time:
      ticks = messages.ticks('history', rows)
      if bundle.real_time:
        ids[requests_lib.TIME] = _seconds(served, ticks, first)
      if explain:
        times = np.array(ticks, dtype=object)
        events = events_lib.Events(b'', times, columns)
    return Shown(ids, len(rows), events)

  def count_unknown(
    self, served: served_lib.Served, side: str, ids: Ids
  ) -> dict[str, np.ndarray]:
    """Returns which values are unknown, and counts them in the metrics.

    Args:
      served: the bundle whose values they are.
      side: 'candidates' or 'history', as the metric calls it.
      ids: field -> ids of the values.

    Returns:
      field -> bool [n].
    """
    unknown = {
      field: served.bundle.unknown(field, ids[field])
      for field in derived_fields.given(served.bundle.fields)
    }
    for field, flags in unknown.items():
      if count := int(flags.sum()):
        self._metrics.unknown.labels(side, field).inc(count)
    return unknown


def _ids(served: served_lib.Served, events: events_lib.Events) -> Ids:
  """Returns the ids of events, with their times where the model reads them."""
  fields = derived_fields.given(served.bundle.fields)
  columns = {field: events.column(field) for field in fields}
  ids = ids_of(served.bundle, 'history', columns)
  if served.bundle.real_time:
    ids[requests_lib.TIME] = served.times.seconds(events.times)
  return ids


def _seconds(
  served: served_lib.Served, ticks: Sequence[int | None], first: int
) -> np.ndarray:
  """Returns the times of a request's behaviors, from the `first` on.

  Raises:
    Problem: 400: the model reads them, and one is missing.
  """
  if None in ticks and 'gap' in served.bundle.real_time:
    raise problems.bad(
      f'history[{first + ticks.index(None)}].time',
      'this time is missing, and the model reads how long ago each behavior'
      f' was: expected {served.times.expected}',
    )
  whole = [0 if tick is None else tick for tick in ticks]
  return served.times.seconds(np.array(whole, np.int64))
