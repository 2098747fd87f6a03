"""The part that all TFDS builders share: one example a user, no TensorFlow."""

from __future__ import annotations

import abc
from collections.abc import Iterator
import json
import pathlib
from typing import Any
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from dare_jax.logs import event_log
from dare_jax.logs import options as options_lib

RAW_IDS_DIR = 'raw_ids'
LOG_FILE = 'log.json'
SPLIT = 'users'


class _OwnInfo(tfds.core.DatasetInfo):
  """What is known of a log, from its own records alone."""

  def initialize_from_bucket(self) -> None:
    """Asks no bucket: that would leave a temporary folder behind each time."""


class LogBuilder(tfds.core.GeneratorBasedBuilder):
  """Turns a raw log into users' event sequences.

  Each example is one user: `user_id` int64, and in stable time order
  `item_id` int32 [n], `category_id` int32 [n], `timestamp` int64 [n], one
  `<field>_id` for each further field, and `label` int8 [n] if the log has
  impressions. Dense ids: 0 padding, 1 unknown, 2.. by first appearance. The
  raw values of the dense ids lie beside the records, in `raw_ids/`; what was
  read and dropped in `log.json`.

  Subclasses give `schema` and `read_log`. `options` name the log and
  say how to read it; TFDS itself, which knows builders by name, gives none.
  """

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIG_CLASS: ClassVar[type]
  READS_INPUT: ClassVar[bool] = True  # the log that `data.input` names
  FIELDS: ClassVar[tuple[str, ...]] = ()  # that `data.fields` may ask for
  USER_FIELDS: ClassVar[tuple[str, ...]] = ()  # that `data.user_fields` may

  def __init__(
    self, *, options: options_lib.LogOptions | None = None, **kwargs: Any
  ) -> None:
    self._options = options
    super().__init__(file_format='array_record', **kwargs)

  @property
  def options(self) -> options_lib.LogOptions:
    """The log that is read."""
    assert self._options is not None
    return self._options

  @property
  @abc.abstractmethod
  def schema(self) -> event_log.LogSchema:
    """What is specific to this log."""

  @abc.abstractmethod
  def read_log(self) -> event_log.EventLog:
    """Reads and encodes the raw log."""

  def extra_files(self, directory: pathlib.Path) -> None:
    """Writes further files beside the records (planted truth and the like)."""

  def _info(self) -> tfds.core.DatasetInfo:
    tensor = tfds.features.Tensor
    features: dict[str, Any] = {'user_id': tensor(shape=(), dtype=np.int64)}
    for field in self.schema.id_fields:
      features[f'{field}_id'] = tensor(shape=(None,), dtype=np.int32)
    features['timestamp'] = tensor(shape=(None,), dtype=np.int64)
    if self.schema.has_labels:
      features['label'] = tensor(shape=(None,), dtype=np.int8)
    return _OwnInfo(
      builder=self,
      description=(type(self).__doc__ or '').strip(),
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    log = self.read_log()
    directory = pathlib.Path(self.data_dir)
    (directory / RAW_IDS_DIR).mkdir(parents=True, exist_ok=True)
    for field, values in log.raw_ids.items():
      values.alias('raw').to_frame().write_parquet(
        directory / RAW_IDS_DIR / f'{field}.parquet'
      )
    (directory / LOG_FILE).write_text(json.dumps(log.report.to_json()))
    self.extra_files(directory)
    return {SPLIT: self._generate_examples(log)}

  def _generate_examples(
    self, log: event_log.EventLog
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for user in range(log.num_users):
      rows = slice(log.offsets[user], log.offsets[user + 1])
      example = {name: column[rows] for name, column in log.columns.items()}
      yield user, example | {'user_id': np.int64(user + 2)}
