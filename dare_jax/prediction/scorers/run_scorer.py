"""Scores by the model of a run, many moments and targets a window."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any
import zlib

import jax
import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax import trained
from dare_jax import types
from dare_jax.data.history import real_times
from dare_jax.experiments import run_config
from dare_jax.logs import derived_fields
from dare_jax.logs import id_map
from dare_jax.logs.values import number_ranges
from dare_jax.models import store_clusters
from dare_jax.prediction import asked as asked_lib
from dare_jax.prediction import history_log
from dare_jax.prediction import raw_ids
from dare_jax.prediction.scorers import packing
from dare_jax.process import numerics

_AHEAD = 2  # batches on their way


class RunScorer:
  """The checkpoint of a run, as `scorer.Scorer` has it.

  Attributes:
    fields: the fields of a target.
    context_fields: the fields of a moment.
    reads_times: whether the model reads when behaviors and moments were.
  """

  def __init__(self, run: trained.Trained) -> None:
    """Keeps the run, and compiles nothing yet.

    Args:
      run: the run whose model scores.

    Raises:
      UsageError: a model whose scores depend on what else is in a batch.
    """
    config = run.experiment.config.model
    if config.batch_statistics:
      raise errors.UsageError(
        'model.batch_statistics=True: a score of this model depends on the'
        ' rows beside it in a batch, so a row has none of its own; train with'
        ' --config.model.batch_statistics=False to predict.'
      )
    self._run = run
    self.fields = run.experiment.store.fields
    self.context_fields = run.experiment.store.context_fields
    self.reads_times = bool(run.model.config.real_time)
    self.user_fields = run.experiment.store.user_fields
    self.has_clusters = store_clusters.COLLECTION in run.variables
    self._raw: dict[str, raw_ids.RawIds] = {}
    self._limits = packing.Limits(
      run.history_length, config.top_k, config.keep_padding
    )

  @functools.cached_property
  def fingerprint(self) -> Mapping[str, Any]:
    """What the scores depend on."""
    crc = 0
    for leaf in jax.tree.leaves(self._run.variables):
      crc = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data, crc)
    config = self._run.experiment.config
    return {
      'step': self._run.step,
      'config': run_config.digest(config),
      'data': self._run.experiment.store.fingerprint,
      'variables': crc,
    }

  def ids(self, field: str, column: raw_ids.Column) -> np.ndarray:
    """Returns the model's ids of raw values: int32 [n]."""
    store = self._run.experiment.store
    if field in store.numbers:
      values = number_ranges.of_series(column.values)
      column = dataclasses.replace(column, values=values)
    column = raw_ids.of_sets(column, store.sets.get(field))
    found = self._raw_ids(field)(column)
    return self._run.experiment.as_read(field, found).astype(np.int32)

  def of_users(self, field: str, column: raw_ids.Column) -> np.ndarray:
    """Returns the model's ids of what users have of a field: int32 [n]."""
    store = self._run.experiment.store
    user = self._raw_ids('user')(column) - id_map.FIRST
    values = np.append(store.user_values(field), id_map.UNKNOWN)
    found = values[np.where(user < 0, store.num_users, user)]
    return self._run.experiment.as_read(field, found).astype(np.int32)

  def has_value(self, field: str, value: str) -> bool:
    """Whether a text is a value of a field that the log has."""
    known = self._raw_ids(field).known
    return known.dtype == pl.String and value in known

  def _raw_ids(self, field: str) -> raw_ids.RawIds:
    if field not in self._raw:
      known = self._run.experiment.store.raw_ids(field)
      self._raw[field] = raw_ids.RawIds(field, known)
    return self._raw[field]

  def is_unknown(self, field: str, ids: np.ndarray) -> np.ndarray:
    """Returns which ids stand for what the model does not know: bool [n]."""
    del field  # The same in all.
    return ids == id_map.UNKNOWN

  def own_log(self) -> history_log.HistoryLog:
    """Returns the log that the run was trained on."""
    parts = self._run.experiment
    translated = {
      field: parts.as_read(field, np.arange(size)).astype(np.int32)
      for field, size in parts.store.vocab_sizes.items()
      if field in derived_fields.given(self.fields)
    }
    for field in filter(derived_fields.is_derived, self.fields):
      translated[field] = parts.store.item_values[field]
    return history_log.HistoryLog(parts.store, translated)

  def score(
    self,
    asked: asked_lib.Asked,
    log: history_log.HistoryLog,
    check_stop: Callable[[], None],
  ) -> np.ndarray:
    """Returns the logits of targets, as `scorer.Scorer` says."""
    logits = np.empty(asked.first[-1], np.float32)
    begin = log.begins(asked.user)
    waiting: list[tuple[packing.Batch, Any]] = []
    with numerics.of_runs():
      for part in packing.pack(asked, begin, self._limits):
        check_stop()
        batch = self._batch(asked, log, begin, part)
        waiting.append((part, self._apply(self._run.variables, batch)))
        if len(waiting) > _AHEAD:
          _put(logits, *waiting.pop(0))
      for part, found in waiting:
        _put(logits, part, found)
    return logits

  @functools.cached_property
  def _apply(self) -> Any:
    model: Any = self._run.model
    return jax.jit(functools.partial(model.apply, method='logits'))

  def _batch(
    self,
    asked: asked_lib.Asked,
    log: history_log.HistoryLog,
    begin: np.ndarray,
    part: packing.Batch,
  ) -> types.Batch:
    length, last = part.length, asked.end[part.last]
    row = last[:, None] + np.arange(-length, 0)
    mask = row >= begin[part.last][:, None]
    seen = np.where(mask, row, 0)
    ids = {}
    for field in self.fields:
      if len(log.store.behaviors):
        ids[field] = np.where(mask, log.behaviors(field, seen), id_map.PADDING)
      else:
        ids[field] = np.zeros(mask.shape, np.int32)
    rows = np.where(mask, row + 1, 0).astype(np.int32)
    end = length - (last[:, None] - asked.end[part.moment])
    slot = np.arange(part.size)
    is_real = slot < part.count[:, :, None]
    place = np.where(is_real, part.first[:, :, None] + slot, 0)
    weight = is_real.astype(np.float32)
    targets = {
      field: np.where(is_real, values[place], id_map.PADDING)
      for field, values in asked.targets.items()
    }
    time = now = None
    if self.reads_times:
      assert asked.time is not None
      origin = real_times.origin(asked.time[part.last])[:, None]
      now = real_times.after(origin, asked.time[part.moment])
      time = np.zeros(mask.shape, np.int32)
      if len(log.store.behaviors):
        time = real_times.after(origin, log.seconds(seen)) * mask
    start = None
    if length > self._limits.history_length:
      start = (end - self._limits.history_length).astype(np.int32)
    return types.Batch(
      history=types.History(
        ids=ids,
        mask=mask,
        row=rows if self.has_clusters else None,
        time=time,
      ),
      end=end.astype(np.int32),
      targets=types.Targets(ids=targets, label=weight, weight=weight),
      context={f: values[part.moment] for f, values in asked.context.items()},
      start=start,
      now=now,
    )


def _put(logits: np.ndarray, part: packing.Batch, found: Any) -> None:
  """Puts the logits of a batch where its targets are."""
  is_real = np.arange(part.size) < part.count[:, :, None]
  place = part.first[:, :, None] + np.arange(part.size)
  logits[place[is_real]] = np.asarray(found, np.float32)[is_real]
