"""A store of random events, to measure with: nothing can be learnt from it."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.data import options as data_options
from dare_jax.logs import id_map
from dare_jax.store import history_store
from dare_jax.store import store_writer

_NUM_USERS = 2_000


@dataclasses.dataclass(frozen=True)
class Shape:
  """Sizes of a random log.

  Attributes:
    rows: number of rows of an item table: items, padding and unknown.
    categories: rows of a category table, likewise.
    distinct: items that occur; spread over the rows at random, so that tables
      of any size are read alike.
  """

  rows: int
  categories: int
  distinct: int

  @property
  def vocab_sizes(self) -> dict[str, int]:
    """Field -> rows of its tables."""
    return {'item': self.rows, 'category': self.categories}

  def __post_init__(self) -> None:
    if self.distinct > self.rows - id_map.FIRST:
      raise errors.UsageError(
        f'{self.distinct} distinct items do not fit into a table of'
        f' {self.rows} rows, two of which are no items; lower --distinct or'
        ' raise --rows.'
      )


def events(data: data_options.PipelineOptions) -> int:
  """Returns how many events of a user give every moment a full history."""
  return max(data.min_events, 2 * data.history_length)


def write(
  folder: pathlib.Path, shape: Shape, num_events: int
) -> history_store.HistoryStore:
  """Writes and opens a store. The n-th item occurs in proportion to 1 / n.

  Args:
    folder: takes the store.
    shape: the sizes of the log.
    num_events: number of events of each user.
  """
  names = np.random.default_rng(1).choice(
    shape.rows - id_map.FIRST, shape.distinct, replace=False
  )
  rng = np.random.default_rng(0)  # The same draws for all sizes of tables.
  weight = np.cumsum(1.0 / np.arange(1, shape.distinct + 1))
  num_categories = shape.categories - id_map.FIRST
  writer = store_writer.StoreWriter(
    folder / 'store', ('item', 'category'), (), False
  )
  for _ in range(_NUM_USERS):
    draw = rng.random(num_events) * weight[-1]
    rank = np.searchsorted(weight, draw, side='right')
    example = {
      'item_id': names[rank].astype(np.int32) + id_map.FIRST,
      'category_id': (rank % num_categories + id_map.FIRST).astype(np.int32),
      'timestamp': np.arange(num_events, dtype=np.int64),
    }
    writer.add([example])
  raw_ids = {
    'user': pl.int_range(_NUM_USERS, eager=True),
    'item': pl.int_range(shape.rows - id_map.FIRST, eager=True),
    'category': pl.int_range(num_categories, eager=True),
  }
  return writer.commit(raw_ids, {'dataset': 'random'})
