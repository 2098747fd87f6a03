"""A trained run in Python: its model, what it has learned, and its ids."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from jaxtyping import Int32
import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax import models
from dare_jax.data import id_map
from dare_jax.training import experiment as experiment_lib
from dare_jax.training import saved_run


@dataclasses.dataclass(frozen=True)
class Trained:
  """What `load` returns.

  Attributes:
    model: for `model.apply(variables, ...)`, on any device.
    variables: 'params', 'tables', 'batch_stats', 'constants' and, of a search
      over clusters, 'clusters'; row i of a table is that of id i. The model
      predicts with them what the run did: parameters have the dtype that the
      run computes in, tables that in which they are stored.
    step: of the checkpoint.
    experiment: the config, the history store and the pipelines of the run.
    known: field -> raw values, read when `ids` first asks for them.
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
    return int(self.experiment.config.data.history_length)

  def ids(self, field: str, raw: Sequence[Any]) -> Int32[np.ndarray, ' n']:
    """Returns the ids of raw values, as they are in the log.

    A value that training has not read is `id_map.UNKNOWN`, as in evaluation;
    padding is `id_map.PADDING`.

    Args:
      field: 'item', 'category', or a further field of the log.
      raw: integers or strings, as the log has them.

    Raises:
      UsageError: no such field, or values of another kind.
    """
    store = self.experiment.store
    if field not in store.vocab_sizes:
      fields = ', '.join(sorted(store.vocab_sizes))
      raise errors.UsageError(f'field {field!r}: expected one of {fields}.')
    if field not in self.known:
      self.known[field] = store.raw_ids(field)
    known = self.known[field]
    try:
      asked = pl.Series(raw, dtype=known.dtype, strict=True)
    except (TypeError, pl.exceptions.PolarsError) as error:
      raise errors.UsageError(
        f'raw values of {field!r}: expected {known.dtype}, as in the log;'
        f' {str(error).splitlines()[0]}'
      ) from None
    found = id_map.lookup(known, asked).fill_null(id_map.UNKNOWN).to_numpy()
    return self.experiment.as_read(field, found).astype(np.int32)


def load(workdir: str | os.PathLike[str], which: str = 'best') -> Trained:
  """Returns what a run has learned.

  Args:
    workdir: of a run that has saved a checkpoint.
    which: 'best', 'last', or a step.

  Raises:
    UsageError: no run or no such checkpoint there, or its data is gone.
  """
  saved = saved_run.restore(workdir, which)
  model = saved.experiment.trainer.model
  return Trained(model, saved.variables(), saved.step, saved.experiment)
