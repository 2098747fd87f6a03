"""A trained run in Python: its model, what it has learned, and its ids."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
from typing import Any

import jax
from jaxtyping import Float32
from jaxtyping import Int32
import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax import models
from dare_jax import types
from dare_jax.data.history import real_times
from dare_jax.experiments import experiment as experiment_lib
from dare_jax.logs import derived_fields
from dare_jax.logs import given_values
from dare_jax.logs import id_map
from dare_jax.logs.values import set_values
from dare_jax.models import store_clusters
from dare_jax.process import numerics
from dare_jax.runs import saved_run

_TIME = 'time'  # what the times of a history are called


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained model, as `load` returns it.

  Attributes:
    model: the model, for `model.apply(variables, ...)`, on any device.
    variables: 'params', 'tables', 'batch_stats', 'constants' and, of a search
      over clusters, 'clusters'; row i of a table is that of id i. The model
      predicts with them what the run did: parameters have the dtype that the
      run computes in, tables that in which they are stored.
    step: the step of the checkpoint.
    experiment: the config, the history store and the pipelines of the run.
    known: field -> series of raw values, read when `ids` first asks for them.
  """

  model: models.Ranker
  variables: dict[str, Any]
  step: int
  experiment: experiment_lib.Experiment
  known: dict[str, pl.Series] = dataclasses.field(
    default_factory=dict, repr=False
  )

  @property
  def history_length(self) -> int:
    """How many behaviors the model was shown: for `user_state.build`."""
    return self.experiment.options.data.history_length

  def ids(self, field: str, raw: Any) -> Int32[np.ndarray, ' n']:
    """Returns the ids of raw values, as they are in the log.

    A value that training has not read is `id_map.UNKNOWN`, as in evaluation,
    and so is a missing one (None, NaN); padding is `id_map.PADDING`.

    Args:
      field: 'item', 'category', or a further field of the log; or
        'item_vector', whose raw values are items.
      raw: a list, an array of NumPy, or a series of pandas or Polars. 5, 5.0
        and '5' are the same value; of a field of sets, each is a list of
        members or text, in any order.

    Raises:
      UsageError: no such field, or a value that no log could have.
    """
    store = self.experiment.store
    if field not in store.vocab_sizes:
      fields = ', '.join(sorted(store.vocab_sizes))
      raise errors.UsageError(f'field {field!r}: expected one of {fields}.')
    if field not in self.known:
      self.known[field] = store.raw_ids(field)
    known = self.known[field]
    raw = set_values.named(field, raw, store.numbers, store.sets)
    asked = given_values.as_known(field, raw, known)
    found = id_map.lookup(known, asked).fill_null(id_map.UNKNOWN).to_numpy()
    return self.experiment.as_read(field, found).astype(np.int32)

  def score(
    self,
    history: Mapping[str, Sequence[Any]],
    candidates: Mapping[str, Sequence[Any]],
    context: Mapping[str, Any] | None = None,
    now: Any = None,
    user: Any = None,
  ) -> Float32[np.ndarray, ' n']:
    """Returns the logits of candidates after the history of one user.

    What evaluation computes of the same moment: the model sees the last
    `history_length` behaviors, and the unknown id for what training has not
    read. A number of candidates up to the next power of two is compiled once.

    Args:
      history: field -> raw values of the behaviors, oldest first; none: [].
        With real time also `time`: dates, as text in ISO 8601 or `datetime`, or
        numbers, whichever the log has.
      candidates: field -> raw values of the n candidates.
      context: field -> raw value at this moment, of the fields that the log
        has for the head alone.
      now: the time of the moment, as those of the history, where these have it.
      user: raw user; fields of the user that `context` lacks are what the log
        last had, or unknown ones.

    Returns:
      Logits of a click: `jax.nn.sigmoid` makes probabilities of them.

    Raises:
      UsageError: fields, times or lengths that do not fit, values of another
        kind, or a model that searches clusters, which are known for behaviors
        of the store alone.
    """
    if store_clusters.COLLECTION in self.variables:
      raise errors.UsageError(
        f'model.search={self.model.config.search}: its clusters are known for'
        ' the behaviors of the prepared log alone, not for raw ones; score'
        " batches of the run's pipelines, or a model with another search."
      )
    store, context = self.experiment.store, context or {}
    history = dict(history)
    times = history.pop(_TIME, None)
    behaviors = self._behaviors('history', history)
    scored = self._behaviors('candidates', candidates)
    moment = self.of_user(user, context)
    _check_fields('context', {**context, **moment}, store.context_fields)
    for field, value in context.items():
      moment[field] = int(self.ids(field, [value])[0])
    num_candidates = len(scored['item'])
    batch = self._batch(behaviors, scored, moment)
    if self.model.config.real_time or times is not None or now is not None:
      batch = self._with_times(batch, times, now, len(behaviors['item']))
    with numerics.of_runs():
      logits = self._apply(self.variables, batch).logits
    return np.asarray(logits, np.float32)[0, 0, :num_candidates]

  def _batch(
    self,
    behaviors: Mapping[str, np.ndarray],
    scored: Mapping[str, np.ndarray],
    context: Mapping[str, int],
  ) -> types.Batch:
    """Returns the batch of one moment, its candidates padded."""
    length = self.history_length
    shown = min(len(behaviors['item']), length)
    num_candidates = len(scored['item'])
    padded = 1 << max(num_candidates - 1, 0).bit_length()
    past = {
      field: np.pad(ids, (length, 0))[None, -length:]
      for field, ids in behaviors.items()
    }
    targets = {
      field: np.pad(ids, (0, padded - num_candidates))[None, None]
      for field, ids in scored.items()
    }
    weight = (np.arange(padded) < num_candidates)[None, None].astype(np.float32)
    return types.Batch(
      history=types.History(
        ids=past, mask=np.arange(length)[None] >= length - shown
      ),
      end=np.full((1, 1), length, np.int32),
      targets=types.Targets(ids=targets, label=weight, weight=weight),
      context={
        field: np.full((1, 1), value, np.int32)
        for field, value in context.items()
      },
    )

  def _with_times(
    self, batch: types.Batch, times: Any, now: Any, count: int
  ) -> types.Batch:
    """Returns a batch with the times of `count` behaviors and of the moment."""
    parts = self.model.config.real_time
    if not parts or times is None or now is None:
      given = [
        name
        for name, value in ((f'history[{_TIME!r}]', times), ('now', now))
        if value is not None
      ]
      raise errors.UsageError(
        f'expected history[{_TIME!r}] and now with model.real_time, and neither'
        f' without: the model has {",".join(parts) or "none"}, given were'
        f' {" and ".join(given) or "neither"}.'
      )
    clock = real_times.Clock(self.experiment.store)
    own, moment = clock.of_raw(_TIME, times), clock.of_raw('now', [now])
    if len(own) != count:
      raise errors.UsageError(
        f'history: expected as many values of each field, got {count} of item,'
        f' {len(own)} of {_TIME}.'
      )
    origin, length = real_times.origin(moment), self.history_length
    time = np.pad(real_times.after(origin, own), (length, 0))[None, -length:]
    history = dataclasses.replace(batch.history, time=time)
    after = real_times.after(origin, moment)[None]
    return dataclasses.replace(batch, history=history, now=after)

  def of_user(self, user: Any, but: Collection[str] = ()) -> dict[str, int]:
    """Returns field -> the model's id of what a user has, of user fields.

    Args:
      user: raw user; one that the log lacks, or None, has the unknown values.
      but: fields to leave out.
    """
    store = self.experiment.store
    if not store.user_fields:
      return {}
    row = int(self.ids('user', [user])[0]) - id_map.FIRST
    found = {}
    for field in store.user_fields:
      if field in but:
        continue
      own = store.user_values(field)[row] if row >= 0 else id_map.UNKNOWN
      found[field] = int(self.experiment.as_read(field, np.array([own]))[0])
    return found

  def _behaviors(
    self, name: str, columns: Mapping[str, Sequence[Any]]
  ) -> dict[str, Int32[np.ndarray, ' n']]:
    """Returns the ids of columns, which are all fields, of one length."""
    fields = self.experiment.store.fields
    _check_fields(name, columns, derived_fields.given(fields))
    found = {
      field: self.ids(field, columns[derived_fields.source(field)])
      for field in fields
    }
    if len({len(ids) for ids in found.values()}) > 1:
      lengths = [f'{len(ids)} of {field}' for field, ids in found.items()]
      raise errors.UsageError(
        f'{name}: expected as many values of each field, got'
        f' {", ".join(lengths)}.'
      )
    return found

  @functools.cached_property
  def _apply(self) -> Any:
    return jax.jit(self.model.apply)


def _check_fields(
  name: str, given: Mapping[str, Any], fields: Sequence[str]
) -> None:
  if set(given) != set(fields):
    raise errors.UsageError(
      f'{name}: expected the fields {", ".join(fields) or "none"}, got'
      f' {", ".join(map(str, given)) or "none"}.'
    )


def load(workdir: str | os.PathLike[str], which: str | int = 'best') -> Trained:
  """Returns the trained model of a run.

  Args:
    workdir: folder of a run that has saved a checkpoint.
    which: 'best', 'last', or a step.

  Raises:
    UsageError: no run or no such checkpoint there, or its data is gone.
  """
  saved = saved_run.restore(workdir, which)
  model = saved.experiment.trainer.model
  return Trained(model, saved.variables(), saved.step, saved.experiment)
