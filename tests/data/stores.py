"""Small stores and configs for tests, and what Python says is in them."""

import dataclasses
import pathlib
import tempfile
from typing import Any

from hypothesis import strategies as st
import numpy as np
import polars as pl

from dare_jax.configs import base
from dare_jax.data import options
from dare_jax.logs import event_log
from dare_jax.logs import raw_log
from dare_jax.store import history_store
from dare_jax.store import store_writer

PLAIN = event_log.LogSchema()


def frame(rows, schema=PLAIN) -> pl.DataFrame:
  """Tuples (user, item, category, time, fields.., context.., [label])."""
  names = ['user', 'item', 'category', 'time', *schema.id_fields[2:]]
  names += ['label'] if schema.has_labels else []
  return pl.DataFrame(list(rows), schema=names, orient='row')


def encode(rows, schema=PLAIN) -> event_log.EventLog:
  return event_log.encode([frame(rows, schema)], schema, raw_log.RowReport())


def writer(log, path, schema=PLAIN):
  """A store writer that holds all users of `log`."""
  made = store_writer.StoreWriter(
    pathlib.Path(path),
    ('item', 'category', *schema.fields),
    schema.context_fields,
    schema.has_labels,
  )
  for user in range(log.num_users):
    own = slice(log.offsets[user], log.offsets[user + 1])
    made.add([{name: column[own] for name, column in log.columns.items()}])
  return made


def build(
  rows, path=None, schema=PLAIN, min_item_count=1
) -> history_store.HistoryStore:
  """A store of the rows; without `path` it lives in memory alone."""
  log = encode(rows, schema)
  if path is not None:
    return writer(log, path, schema).commit(log.raw_ids, {}, min_item_count)
  with tempfile.TemporaryDirectory() as folder:
    store = writer(log, pathlib.Path(folder) / 's', schema).commit(
      log.raw_ids, {}, min_item_count
    )
    return history_store.HistoryStore(
      store.path,
      store.manifest,
      _in_memory(store.behaviors),
      store.impressions and _in_memory(store.impressions),
      {name: np.array(value) for name, value in store.item_values.items()},
    )


def _in_memory(table: history_store.Table) -> history_store.Table:
  columns = {name: np.array(value) for name, value in table.columns.items()}
  return history_store.Table(np.array(table.offsets), columns)


def data_options(**changes: Any) -> options.PipelineOptions:
  """The options of the default config with some fields changed."""
  made = options.of_section(base.get_config().data)
  return dataclasses.replace(made, **changes)


def events_of(table: history_store.Table, user: int) -> list[dict[str, int]]:
  """A user's rows as dictionaries, each with its row number in the table."""
  return [
    {'row': row}
    | {
      name: int(column[row])
      for name, column in table.columns.items()
      if not name.startswith('sorted_')
    }
    for row in range(table.offsets[user], table.offsets[user + 1])
  ]


def random_rows(
  seed: int,
  users: int,
  low: int,
  high: int,
  items: int = 40,
  span: int = 30,
  has_labels: bool = False,
) -> list[tuple[int, ...]]:
  """Users with `low` to `high` events, shuffled; few items are frequent."""
  rng = np.random.default_rng(seed)
  rows = []
  for user in range(users):
    for _ in range(rng.integers(low, max(low, high) + 1)):
      item = int(items * rng.random() ** 2)
      row = (user, item, int(rng.integers(7)), int(rng.integers(span)))
      rows.append((*row, int(rng.integers(2))) if has_labels else row)
  return [rows[i] for i in rng.permutation(len(rows))]


def logs(has_labels: bool = False) -> st.SearchStrategy:
  """Random logs. Drawn by NumPy, as lists of Hypothesis are too short."""
  return st.builds(
    random_rows,
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 4),
    low=st.just(1),
    high=st.integers(1, 30),
    items=st.integers(1, 20),
    span=st.integers(1, 20),
    has_labels=st.just(has_labels),
  )
