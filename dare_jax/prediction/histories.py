"""The log of `--history`: read once, and kept as prepared data is."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib

import ml_collections

from dare_jax import errors
from dare_jax.configs import base
from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from dare_jax.store import history_store
from dare_jax.store import log_origin

_FOLDER = 'histories'


@dataclasses.dataclass(frozen=True)
class Reading:
  """How a log of histories is read, and where it is kept.

  Attributes:
    fields: further fields of a behavior, which the model reads.
    data: the data section of the config that reads such logs; None: the base
      config's, for a log of one's own.
    columns: role -> name of its column, where it is another than `data` says.
    data_dir: folder of prepared data; None: that of `data`.
  """

  fields: Sequence[str] = ()
  data: ml_collections.ConfigDict | None = None
  columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
  data_dir: str | None = None


def open_store(given: str, how: Reading) -> history_store.HistoryStore:
  """Returns the history store of a log, prepared if it is not there.

  What was prepared of the same path is used as long as the log has not changed.

  Args:
    given: the log: a file, a folder or a pattern.
    how: how the log is read.

  Raises:
    UsageError: a log that cannot be read, or lacks a field.
  """
  data = log_options.of_section(_data(given, how))
  store = datasets.open_or_prepare(data, check_input=False)
  made_from, now = log_origin.of_store(store), log_origin.look_at(given)
  if now is not None and (
    made_from is None or not now.has_content_of(made_from)
  ):
    store = datasets.prepare(data)
  lacking = [field for field in how.fields if field not in store.fields]
  if lacking:
    raise errors.UsageError(
      f'--history={given}: a log of {data.name} has no {", ".join(lacking)},'
      ' which the model reads of each behavior.'
    )
  return store


def _data(given: str, how: Reading) -> ml_collections.ConfigDict:
  """Returns the data section that reads the log."""
  source = base.get_config().data if how.data is None else how.data
  data = source.copy_and_resolve_references()
  cls, _ = datasets.builder_class(data.name)
  with data.unlocked():
    if not cls.READS_INPUT:
      data.name = 'csv_log'
      data.columns.fields = tuple(how.fields)
    for role, name in how.columns.items():
      data.columns[role] = name
    path = os.path.abspath(pathlib.Path(given).expanduser())
    digest = hashlib.sha256(path.encode()).hexdigest()[:16]
    folder = pathlib.Path(how.data_dir or data.data_dir).expanduser()
    data.data_dir = str(folder / _FOLDER / digest)
    data.input = given
    data.min_item_count = 1
  return data
