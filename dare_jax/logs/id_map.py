"""Dense ids by first appearance: 0 padding, 1 unknown, 2.. the rest."""

from __future__ import annotations

import numpy as np
import polars as pl

PADDING = 0
UNKNOWN = 1
FIRST = 2


def lookup(known: pl.Series, values: pl.Series) -> pl.Series:
  """Returns the dense ids of raw values, null for those that are not known.

  Args:
    known: series of distinct raw values; position i has the dense id i + FIRST.
    values: series of raw values to look up, of the type of `known`.
  """
  rows = known.alias('raw').to_frame().with_row_index('row', offset=FIRST)
  asked = values.alias('raw').to_frame()
  found = asked.join(rows, on='raw', how='left', maintain_order='left')
  return found['row'].cast(pl.Int64)


class IdMap:
  """Grows a dictionary raw value -> dense id, block by block.

  The dense id of a value does not depend on how the log is cut into blocks.
  """

  def __init__(self) -> None:
    self._known: pl.DataFrame | None = None

  def encode(self, values: pl.Series) -> np.ndarray:
    """Returns int32 dense ids of `values`, adding the unseen ones."""
    frame = values.alias('raw').to_frame()
    if self._known is None:
      self._known = frame.clear().with_columns(id=pl.Series([], dtype=pl.Int32))
    fresh = frame.unique(maintain_order=True).join(
      self._known, on='raw', how='anti', maintain_order='left'
    )
    if len(fresh):
      first = FIRST + len(self._known)
      ids = np.arange(first, first + len(fresh), dtype=np.int32)
      fresh = fresh.with_columns(id=pl.Series(ids))
      self._known = pl.concat([self._known, fresh])
    joined = frame.join(
      self._known, on='raw', how='left', maintain_order='left'
    )
    return joined['id'].to_numpy()

  def raw(self) -> pl.Series:
    """Returns the raw values; position i has the dense id i + FIRST."""
    if self._known is None:
      return pl.Series('raw', [], dtype=pl.Int64)
    return self._known['raw']

  @property
  def vocab_size(self) -> int:
    """Rows that a table needs, padding and unknown included."""
    return FIRST + len(self.raw())
