"""The best of a list of candidates, for each row of an input."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.logs import derived_fields
from dare_jax.prediction import asked as asked_lib
from dare_jax.prediction import blocks
from dare_jax.prediction import columns as columns_lib
from dare_jax.prediction import output
from dare_jax.prediction import reading
from dare_jax.store import log_origin

_PAIRS = 1 << 21  # of moments and candidates, at once
_BLOCK_PAIRS = 1 << 22
_BLOCK_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Candidates:
  """A list of candidates.

  Attributes:
    frame: all columns of the list of candidates.
    ids: field -> int32 [c], ids of the candidates as the model reads them.
    count: how many of them are kept for each row.
    identity: what distinguishes this list from any other, as JSON has it.
    unknown: what of the list the model does not know.
  """

  frame: pl.DataFrame
  ids: Mapping[str, np.ndarray]
  count: int
  identity: Mapping[str, Any]
  unknown: reading.Unknown

  @property
  def kept(self) -> int:
    return min(self.count, len(self.frame))

  @property
  def block_rows(self) -> int:
    """Rows of an input that make a block."""
    pairs = max(1, _BLOCK_PAIRS // len(self.frame))
    return min(pairs, _BLOCK_ROWS, max(1, _BLOCK_PAIRS // self.kept))

  def beside(self, which: np.ndarray, scores: pl.DataFrame) -> pl.DataFrame:
    """Returns the columns of kept candidates with their ranks and scores.

    Args:
      which: int64 [rows * kept], of each row the best first.
      scores: columns from `output.scores`, a row for each of `which`.
    """
    rank = np.tile(np.arange(1, self.kept + 1), len(which) // self.kept)
    ranks = pl.DataFrame({columns_lib.RANK: rank.astype(np.int32)})
    parts = [self.frame[which], ranks, scores]
    return pl.concat(parts, how='horizontal')


def read(reader: reading.Reader, given: str, count: int) -> Candidates:
  """Reads a list of candidates.

  Args:
    reader: knows the columns and ids.
    given: the path of CSV or Parquet.
    count: how many of them to keep for each row.

  Raises:
    UsageError: it cannot be read, or has none.
  """
  if count < 1:
    raise errors.UsageError(f'--top={count}: expected 1 or more.')
  source = columns_lib.open_source('candidates', given, reader.names)
  further = derived_fields.given(reader.scorer.fields)[1:]
  found = columns_lib.find(source, reader.names, ['item'], further)
  for name in (
    columns_lib.RANK,
    columns_lib.LOGIT,
    columns_lib.PROBABILITY,
  ):
    columns_lib.require_free(source.path, source.names, name)
  rows = source.num_rows()
  if not rows:
    raise errors.UsageError(f'--candidates={given}: has no rows.')
  columns = list(found.by_role.values())
  block = next(source.read(rows, range(1), columns))
  unknown = reading.Unknown()
  ids = reader.targets(block, found, unknown)
  origin = log_origin.look_at(str(source.path))
  assert origin is not None
  identity = {'size': origin.size, 'crc32': origin.crc32, 'top': count}
  return Candidates(_frame(block.rows), ids, count, identity, unknown)


def _frame(rows: blocks.Rows) -> pl.DataFrame:
  table = rows.as_table(None, pl.DataFrame())
  frame = pl.from_arrow(table)
  assert isinstance(frame, pl.DataFrame)
  return frame


def best(
  candidates: Candidates,
  reader: reading.Reader,
  moments: asked_lib.Moments,
  check_stop: Callable[[], None],
) -> tuple[np.ndarray, pl.DataFrame]:
  """Returns the best candidates of each row, the better first.

  Of equal ones, that which the list has first.

  Args:
    candidates: the list of candidates.
    reader: the model, with the log.
    moments: the moments of the rows, one each.
    check_stop: called between batches.

  Returns:
    int64 [n * kept], the row of each; the columns to add to them.
  """
  size, kept = len(candidates.frame), candidates.kept
  which = np.empty((len(moments.user), kept), np.int64)
  logits = np.empty((len(moments.user), kept), np.float32)
  step = max(1, _PAIRS // size)
  for start in range(0, len(moments.user), step):
    some = slice(start, start + step)
    part = dataclasses.replace(
      moments,
      user=moments.user[some],
      end=moments.end[some],
      context={field: ids[some] for field, ids in moments.context.items()},
      time=None if moments.time is None else moments.time[some],
    )
    asked = asked_lib.of_all(part, candidates.ids)
    found = reader.scorer.score(asked, reader.logs[0], check_stop)
    found = found.reshape(-1, size)
    order = np.argsort(-found, axis=1, kind='stable')[:, :kept]
    which[some] = order
    logits[some] = np.take_along_axis(found, order, axis=1)
  rows = np.repeat(np.arange(len(moments.of_row)), kept)
  scores = output.scores(logits[moments.of_row].ravel())
  return rows, candidates.beside(which[moments.of_row].ravel(), scores)
