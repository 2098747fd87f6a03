"""Scores by a bundle: compiled programs, a moment of a user at a time each."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import functools
from typing import Any

import numpy as np
import polars as pl

from dare_jax import bundle as bundle_lib
from dare_jax.data.history import real_times
from dare_jax.prediction import asked as asked_lib
from dare_jax.prediction import history_log
from dare_jax.prediction import raw_ids

_AT_ONCE = 256  # requests of a call


class BundleScorer:
  """A bundle, as `scorer.Scorer` has it."""

  def __init__(self, opened: bundle_lib.Bundle) -> None:
    self._bundle = opened
    self.fields = opened.fields
    self.context_fields = opened.context_fields
    self.reads_times = bool(opened.real_time)
    self.user_fields = opened.user_fields
    # More candidates at once would need a slower program.
    self._most = max((shape.candidates for shape in opened.shapes), default=512)

  @property
  def fingerprint(self) -> Mapping[str, Any]:
    """What the scores depend on."""
    return {'bundle': self._bundle.name, 'version': self._bundle.version}

  def ids(self, field: str, column: raw_ids.Column) -> np.ndarray:
    """Returns the model's ids of raw values: int32 [n]."""

    def look_up(raw: pl.Series) -> pl.Series:
      given = raw.to_numpy() if raw.dtype.is_integer() else raw.to_list()
      return pl.Series(self._bundle.ids(field, given))

    column = raw_ids.of_sets(column, self._bundle.sets.get(field))
    found = raw_ids.of_distinct(column, look_up)
    missing = int(self._missing[field])
    return found.fill_null(missing).to_numpy().astype(np.int32)

  def of_users(self, field: str, column: raw_ids.Column) -> np.ndarray:
    """Returns the model's ids of what users have of a field: int32 [n]."""

    def look_up(raw: pl.Series) -> pl.Series:
      given = raw.to_numpy() if raw.dtype.is_integer() else raw.to_list()
      return pl.Series(self._bundle.of_users(field, given))

    found = raw_ids.of_distinct(column, look_up)
    missing = int(self._bundle.of_users(field, [None])[0])
    return found.fill_null(missing).to_numpy().astype(np.int32)

  @functools.cached_property
  def _missing(self) -> Mapping[str, int]:
    """What the model reads for a missing value of each field."""
    fields = (*self.fields, *self.context_fields)
    return {f: self._bundle.ids(f, [None])[0] for f in fields}

  def has_value(self, field: str, value: str) -> bool:
    """Whether a text is a value of a field that the model knows of."""
    ids = self._bundle.ids(field, [value])
    return not self._bundle.unknown(field, ids)[0]

  def is_unknown(self, field: str, ids: np.ndarray) -> np.ndarray:
    """Returns which ids stand for what the model does not know: bool [n]."""
    return self._bundle.unknown(field, ids)

  def score(
    self,
    asked: asked_lib.Asked,
    log: history_log.HistoryLog,
    check_stop: Callable[[], None],
  ) -> np.ndarray:
    """Returns the logits of targets, as `scorer.Scorer` says."""
    logits = np.empty(asked.first[-1], np.float32)
    begin = log.begins(asked.user)
    for some in self._calls(asked, begin):
      check_stop()
      self._score(asked, log, begin, some, logits)
    return logits

  def _calls(
    self, asked: asked_lib.Asked, begin: np.ndarray
  ) -> Iterator[np.ndarray]:
    """Yields moments for one call each, about as long and wide as each other.

    That is what lets the bundle score them together.
    """
    length = np.minimum(asked.end - begin, self._bundle.history_length)
    # As powers of two: it pads to a few sizes.
    keys = [
      np.ceil(np.log2(np.maximum(sizes, 1))) for sizes in (asked.count, length)
    ]
    order = np.lexsort(keys)
    order = order[asked.count[order] > 0]
    for start in range(0, len(order), _AT_ONCE):
      yield order[start : start + _AT_ONCE]

  def _score(
    self,
    asked: asked_lib.Asked,
    log: history_log.HistoryLog,
    begin: np.ndarray,
    some: np.ndarray,
    logits: np.ndarray,
  ) -> None:
    """Scores the targets of some moments into `logits`."""
    histories, candidates, contexts, places = [], [], [], []
    for moment in some.tolist():
      end = int(asked.end[moment])
      first = max(int(begin[moment]), end - self._bundle.history_length)
      rows = np.arange(first, end)
      history = {field: log.behaviors(field, rows) for field in self.fields}
      context = {f: int(ids[moment]) for f, ids in asked.context.items()}
      if asked.time is not None:
        now = asked.time[moment : moment + 1]
        origin = real_times.origin(now)
        context['time'] = int(real_times.after(origin, now)[0])
        history['time'] = real_times.after(origin, log.seconds(rows))
      stop = int(asked.first[moment + 1])
      for start in range(int(asked.first[moment]), stop, self._most):
        place = slice(start, min(start + self._most, stop))
        places.append(place)
        histories.append(history)
        contexts.append(context)
        candidates.append({f: ids[place] for f, ids in asked.targets.items()})
    found = self._bundle.score(histories, candidates, contexts)
    for place, scores in zip(places, found, strict=True):
      logits[place] = scores.logit
