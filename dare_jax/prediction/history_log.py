"""The log that histories come from: its users, times and last values."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools

import numpy as np
import polars as pl

from dare_jax.data.history import real_times
from dare_jax.logs import derived_fields
from dare_jax.logs import id_map
from dare_jax.prediction import raw_ids
from dare_jax.prediction import times
from dare_jax.store import history_store
from dare_jax.store import ragged

# Raw values of a field, row i of the id i + 2 -> ids of the model.
Translate = Callable[[str, pl.Series], np.ndarray]


class HistoryLog:
  """A history store whose ids are given as a model reads them.

  Users are rows of the store; `num_users` is one who has done nothing, for
  those that the log does not have.
  """

  def __init__(
    self,
    store: history_store.HistoryStore,
    translated: Mapping[str, np.ndarray],
  ) -> None:
    """Keeps the store and the model's ids of its values.

    Args:
      store: the store of the log.
      translated: field of a behavior -> int32 [ids], the model's id of each id
        of the field, or of the one that it follows from.
    """
    self.store = store
    self._translated = translated
    offsets = np.asarray(store.behaviors.offsets)
    self._offsets = np.append(offsets, offsets[-1])
    self._raw: dict[str, raw_ids.RawIds] = {}

  def users(self, column: raw_ids.Column) -> np.ndarray:
    """Returns the row of each user in the store: int64 [n]."""
    found = self._ids('user', column) - id_map.FIRST
    return np.where(found < 0, self.store.num_users, found)

  def ends(self, user: np.ndarray, column: raw_ids.Column | None) -> np.ndarray:
    """Returns below which row of the store behaviors are seen: int64 [n].

    Args:
      user: int64 [n], rows of users.
      column: the times before which behaviors are seen; None: all are.
    """
    if column is None:
      return self._offsets[user + 1]
    table = self.store.behaviors
    return ragged.lower_bound(
      table.columns['timestamp'], self._offsets, user, self._times(column)
    )

  def moments(self, column: raw_ids.Column | None, count: int) -> np.ndarray:
    """Returns the times of moments in seconds since 1970: int64 [n].

    Args:
      column: the times; None: all moments are at that of the last behavior.
      count: number of moments.

    Raises:
      UsageError: the unit of the log's times is not known.
    """
    if column is not None:
      return self._times(column) // self._clock.ticks
    times = self.store.behaviors.columns['timestamp']
    last = int(times.max(initial=0)) // self._clock.ticks
    return np.full(count, last, np.int64)

  def seconds(self, rows: np.ndarray) -> np.ndarray:
    """Returns the times of rows of the store since 1970: int64."""
    return self._clock.of_behaviors(rows)

  def begins(self, user: np.ndarray) -> np.ndarray:
    """Returns the row of each user's first behavior: int64 [n]."""
    return self._offsets[user]

  def behaviors(self, field: str, rows: np.ndarray) -> np.ndarray:
    """Returns the model's ids of a field at rows of the store: int32."""
    source = derived_fields.source(field)
    ids = self.store.behaviors.columns[f'{source}_id'][rows]
    return self._translated[field][ids]

  def last_values(self, field: str, item: raw_ids.Column) -> np.ndarray:
    """Returns the model's id of what each item had last: int32 [n].

    Args:
      field: category, or a further one.
      item: raw items; those that the log lacks have the unknown value.
    """
    ids = self._ids('item', item)
    return self._translated[field][self.store.item_values[field][ids]]

  def _ids(self, field: str, column: raw_ids.Column) -> np.ndarray:
    if field not in self._raw:
      self._raw[field] = raw_ids.RawIds(field, self.store.raw_ids(field))
    return self._raw[field](column)

  @functools.cached_property
  def _clock(self) -> real_times.Clock:
    return real_times.Clock(self.store)

  @functools.cached_property
  def _times(self) -> times.Times:
    return times.Times(self.store)


def translated(
  store: history_store.HistoryStore,
  fields: Sequence[str],
  translate: Translate,
) -> dict[str, np.ndarray]:
  """Returns what `HistoryLog` needs for a log that is not the model's own.

  Args:
    store: the store of the log.
    fields: the fields of a behavior that the model reads.
    translate: returns the model's ids of raw values.
  """
  found = {}
  for field in fields:
    ids = translate(field, store.raw_ids(derived_fields.source(field)))
    first = [id_map.PADDING, id_map.UNKNOWN]
    found[field] = np.concatenate([first, ids]).astype(np.int32)
  return found
