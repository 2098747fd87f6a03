"""Histories as batches hold them, cut out of a store."""

from __future__ import annotations

import numpy as np

from dare_jax import types
from dare_jax.data import splits
from dare_jax.data.history import real_times
from dare_jax.logs import id_map
from dare_jax.store import history_store


class Histories:
  """Cuts the histories of windows, and their times, out of a store."""

  def __init__(
    self,
    store: history_store.HistoryStore,
    with_rows: bool = False,
    with_times: bool = False,
  ) -> None:
    """Makes what cuts them.

    Args:
      store: the history store.
      with_rows: fill `History.row`.
      with_times: fill `History.time`, and return the times of moments.

    Raises:
      UsageError: times are asked for, and the store's have no known unit.
    """
    self._store = store
    self._with_rows = with_rows
    self._clock = real_times.Clock(store) if with_times else None

  def __call__(
    self, last: splits.Moments, moments: splits.Moments, length: int
  ) -> tuple[types.History, np.ndarray | None]:
    """Returns the last behaviors before each moment, right-aligned.

    Args:
      last: the last moment of each of b windows.
      moments: b m of them, all moments of the windows, one after the other.
      length: slots of a history, l.

    Returns:
      Histories [b, l], and the times of the moments, int32 [b, m], from their
      window's origin on; None: no times were asked for.
    """
    table = self._store.behaviors
    row = last.end[:, None] + np.arange(-length, 0)
    mask = row >= table.offsets[last.user][:, None]
    np.maximum(row, 0, out=row)
    ids = {}
    for field in self._store.fields:
      values = table.columns[f'{field}_id'][row]
      values[~mask] = id_map.PADDING
      ids[field] = values
    rows = time = now = None
    if self._with_rows:
      rows = np.where(mask, row + 1, 0).astype(np.int32)
    if self._clock is not None:
      origin = real_times.origin(self._clock.of_moments(last))[:, None]
      of_moments = self._clock.of_moments(moments).reshape(len(last), -1)
      now = real_times.after(origin, of_moments)
      time = real_times.after(origin, self._clock.of_behaviors(row)) * mask
    return types.History(ids=ids, mask=mask, row=rows, time=time), now
