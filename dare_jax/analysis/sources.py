"""The runs that are analysed, and the rows of the log that they share."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib

import numpy as np

from dare_jax import errors
from dare_jax import storage
from dare_jax import types
from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import same_rows
from dare_jax.analysis import source as source_lib
from dare_jax.data import options as data_options
from dare_jax.data import pipeline
from dare_jax.evaluation import metrics
from dare_jax.logs import options as log_options
from dare_jax.store import history_store

_COUNTED_AT_ONCE = 4096  # moments whose targets are made at once
# (target, behavior) pairs scored at once.
_SCORES_AT_ONCE = 1 << 19


@dataclasses.dataclass(frozen=True)
class Targets:
  """The targets of a split, in the order of its moments.

  Attributes:
    user: int32 [moments], row of the user in the store.
    end: int64 [moments], behaviors at rows below it are seen.
    ids: field -> int32 [moments, c].
    label: bool [moments, c].
    real: bool [moments, c], False for padding.
  """

  user: np.ndarray
  end: np.ndarray
  ids: dict[str, np.ndarray]
  label: np.ndarray
  real: np.ndarray

  def rows(self) -> information.Rows:
    """Returns the real targets, one after the other."""
    moment, slot = np.nonzero(self.real)
    return information.Rows(
      self.ids['category'][moment, slot],
      self.label[moment, slot],
      self.user[moment],
      self.end[moment],
    )


class Sources:
  """Runs over the same rows of the same log.

  The run that reads the most further fields gives the rows to all.
  """

  def __init__(self, sources: Sequence[source_lib.Source]) -> None:
    self.all = tuple(sources)
    self._widest = sources[same_rows.widest(sources)]
    self._logits: dict[str, np.ndarray] = {}

  @property
  def labels(self) -> list[str]:
    """The name of each run, in order."""
    return [source.label for source in self.all]

  @property
  def data(self) -> data_options.PipelineOptions:
    """How the rows are made."""
    return data_options.of_section(self._widest.config.data)

  @property
  def planted_share(self) -> float:
    """The share of events of a synthetic log that an earlier one causes."""
    process = log_options.of_section(self._widest.config.data).synthetic
    assert process is not None  # Only a synthetic log has a planted truth.
    return process.relevance

  @property
  def store(self) -> history_store.HistoryStore:
    """The history store of all rows, with the fields that any run reads."""
    return self._widest.run.experiment.store

  @functools.cached_property
  def histories(self) -> information.Histories:
    """The categories of all behaviors, user by user."""
    table = self.store.behaviors
    return information.Histories(
      table.columns['category_id'],
      np.asarray(table.offsets),
      self.data.history_length,
      self.store.vocab_sizes['category'],
    )

  @functools.cached_property
  def test(self) -> Targets:
    """The targets of the test split."""
    return self._targets('test')

  @functools.cached_property
  def training_rows(self) -> information.Rows:
    """The targets of one epoch, the first."""
    return self._targets('train').rows()

  def raw(self, field: str) -> Callable[[int], str]:
    """Returns a map of a field's ids to names as the log has them."""
    known = self.store.raw_ids(field)
    return lambda i: str(known[int(i) - 2]) if i >= 2 else '(unknown)'

  def without_clusters(self) -> Sources | None:
    """Returns the runs whose search is over behaviors; None if none is."""
    kept = [s for s in self.all if not s.searches_clusters]
    if len(kept) == len(self.all):
      return self
    return Sources(kept) if kept else None

  def predictions(self, source: source_lib.Source) -> metrics.Predictions:
    """Returns a run's logits of the real test targets; they are made once."""
    if source.label not in self._logits:
      found = forward.logits(source.run, self.test_batches())
      self._logits[source.label] = found
    logit, test = self._logits[source.label], self.test
    moment, _ = np.nonzero(test.real)
    return metrics.Predictions(
      logit=logit,
      label=test.label[test.real],
      weight=np.ones(len(logit)),
      user=test.user[moment],
      category=test.ids['category'][test.real],
    )

  def test_batches(
    self, length: int | None = None, moments: np.ndarray | None = None
  ) -> Iterator[types.Batch]:
    """Yields the test split, moments in order; the last is padded.

    Ids are those of the store, of which not every run knows all.

    Args:
      length: behaviors that a moment sees; None: as the runs do.
      moments: int [m], numbers of the moments to take; None: all.
    """
    length = self.data.history_length if length is None else length
    made = self._pipeline('test', length, moments)
    scores = made.targets_per_row * length
    size = int(np.clip(_SCORES_AT_ONCE // scores, 1, 1024))
    for item in made.eval_batches(size):
      yield item.stored

  def _targets(self, split: str) -> Targets:
    made = self._pipeline(split, history_length=1)
    moments = made.moments
    ids: dict[str, list[np.ndarray]] = {'item': [], 'category': []}
    label, real = [], []
    for item in made.eval_batches(_COUNTED_AT_ONCE):
      targets = item.stored.targets
      for field, parts in ids.items():
        parts.append(targets.ids[field][:, 0])
      label.append(targets.label[:, 0] > 0.5)
      real.append(targets.weight[:, 0] > 0)
    join = lambda parts: np.concatenate(parts)[: len(moments)]
    return Targets(
      moments.user,
      moments.end,
      {field: join(parts) for field, parts in ids.items()},
      join(label),
      join(real),
    )

  def _pipeline(
    self, split: str, history_length: int, own: np.ndarray | None = None
  ) -> pipeline.Pipeline:
    """Returns a pipeline of one moment a row, in the order of the split."""
    data = dataclasses.replace(
      self.data,
      history_length=history_length,
      max_padding=None,
      group_candidates=True,
    )
    moments = self._widest.run.experiment.pipelines[split].moments
    moments = moments if own is None else moments.take(own)
    rows = split == 'test' and any(s.searches_clusters for s in self.all)
    times = any(s.run.model.config.real_time for s in self.all)
    layout = pipeline.Layout(with_rows=rows, with_times=times)
    seed = self._widest.config.seed
    known = self._widest.run.experiment.known
    return pipeline.Pipeline(
      self.store, moments, split, data, seed, layout=layout, known=known
    )


def locate(workdirs: Sequence[str]) -> Sources:
  """Returns runs, of which configs and checkpoints' names are read.

  Of runs with different further fields the rows of their data are compared.

  Raises:
    UsageError: no run or no checkpoint in one of them, or other rows than in
      the first; or none reads the further fields of all.
  """
  if not workdirs:
    raise errors.UsageError('--runs is missing: folders of runs, with commas.')
  names = [pathlib.PurePath(workdir).name for workdir in workdirs]
  unique = len({*names}) == len(names)
  if len({*map(_absolute, workdirs)}) < len(workdirs):
    raise errors.UsageError('--runs: names a folder twice; name each once.')
  labels = names if unique else list(workdirs)
  found = [
    source_lib.open_run(label, workdir)
    for label, workdir in zip(labels, workdirs, strict=True)
  ]
  same_rows.check(found)
  return Sources(found)


def _absolute(workdir: str) -> str:
  return os.fspath(storage.locate(workdir))
