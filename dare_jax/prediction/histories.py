"""The log of `--history`: read once, and kept as prepared data is."""

from __future__ import annotations

import hashlib
import os
import pathlib
from typing import Any

from dare_jax.configs import base
from dare_jax.store import datasets
from dare_jax.store import history_store
from dare_jax.store import log_origin

_FOLDER = 'histories'


def open_store(
  given: str, data: Any | None = None, fields: tuple[str, ...] = ()
) -> history_store.HistoryStore:
  """Returns the history store of a log, prepared if it is not there.

  What was prepared of the same path is used as long as the log has not changed.

  Args:
    given: the log: a file, a folder or a pattern.
    data: the data section of the config that reads such logs; None: columns
      are named as in the base config.
    fields: further fields of a behavior, where `data` is None.

  Raises:
    UsageError: a log that cannot be read.
  """
  if data is None:
    data = base.get_config().data
    data.name = 'csv_log'
    data.columns.fields = fields
  else:
    data = data.copy_and_resolve_references()
    cls, _ = datasets.builder_class(data.name)
    if not cls.READS_INPUT:
      data.name = 'csv_log'
  with data.unlocked():
    data.input = given
    path = os.path.abspath(pathlib.Path(given).expanduser())
    digest = hashlib.sha256(path.encode()).hexdigest()[:16]
    folder = pathlib.Path(data.data_dir).expanduser() / _FOLDER / digest
    data.data_dir = str(folder)
    data.min_item_count = 1
  store = datasets.open_or_prepare(data, check_input=False)
  made_from, now = log_origin.of_store(store), log_origin.look_at(given)
  if now is not None and (
    made_from is None or not now.has_content_of(made_from)
  ):
    return datasets.prepare(data)
  return store
