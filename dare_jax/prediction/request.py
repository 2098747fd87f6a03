"""A request for bulk scores: checked, and its model and logs opened.

What reads data is imported where it is used: JAX must be told of a run's
settings before.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any
from typing import TYPE_CHECKING

from dare_jax import errors

if TYPE_CHECKING:
  from dare_jax.prediction import history_log
  from dare_jax.prediction import reading
  from dare_jax.prediction.scorers import scorer as scorer_lib

  # A model, the log that it comes with, and the config's data section.
  _Model = tuple[
    scorer_lib.Scorer, tuple[history_log.HistoryLog, ...], Any | None
  ]


@dataclasses.dataclass(frozen=True)
class Request:
  """What to score, and by which model; each field is named as its flag."""

  input: str
  output: str
  workdir: str | None = None
  bundle: str | None = None
  checkpoint: str = 'best'
  history: str | None = None
  candidates: str | None = None
  top: int | None = None
  data_dir: str | None = None
  columns: str | None = None
  shard: str | None = None


def check(request: Request) -> pathlib.Path:
  """Checks what can be seen before anything is read.

  Returns:
    The file to write.

  Raises:
    UsageError: flags that are missing or exclude each other.
  """
  from dare_jax.prediction import blocks
  from dare_jax.prediction import output

  if bool(request.workdir) == bool(request.bundle):
    both = 'both are given' if request.workdir else 'neither is given'
    raise errors.UsageError(
      f'--bundle and --workdir: {both}; expected one of the two.'
    )
  for flag in ('input', 'output'):
    if not getattr(request, flag):
      raise errors.UsageError(f'--{flag} is missing: CSV or Parquet.')
  if request.bundle and not request.history:
    raise errors.UsageError(
      '--history is missing: a bundle holds a model and no histories; give the'
      ' log that they are in.'
    )
  if bool(request.candidates) != (request.top is not None):
    raise errors.UsageError(
      '--candidates and --top: expected both, the list and how many to keep,'
      ' or neither.'
    )
  blocks.one_file('input', request.input)
  if request.candidates:
    blocks.one_file('candidates', request.candidates)
  return output.check(request.output)


def open_reader(request: Request) -> reading.Reader:
  """Returns what reads an input for the model of a run or of a bundle.

  Raises:
    UsageError: no such run or bundle, or a log that does not fit it.
  """
  from dare_jax.logs import derived_fields
  from dare_jax.prediction import columns
  from dare_jax.prediction import histories
  from dare_jax.prediction import history_log
  from dare_jax.prediction import raw_ids
  from dare_jax.prediction import reading

  scorer, own, data = (_of_run if request.workdir else _of_bundle)(request)
  of_log = data.columns if data is not None and data.name == 'csv_log' else None
  of_behaviors = derived_fields.given(scorer.fields)[2:]
  further = (*of_behaviors, *scorer.context_fields)
  names = columns.names_of(of_log, further, request.columns)
  logs = own
  if request.history:
    given = {}
    if data is None:  # A bundle does not know how its log named them.
      own_names = names.given & {'user', 'item', 'category', 'time'}
      given = {k: names.by_role[k][0] for k in own_names if names.by_role[k]}
    how = histories.Reading(of_behaviors, data, given, request.data_dir)
    store = histories.open_store(request.history, how)
    translated = history_log.translated(
      store,
      scorer.fields,
      lambda field, raw: scorer.ids(
        field, raw_ids.Column(raw, field, store.path)
      ),
    )
    logs = (history_log.HistoryLog(store, translated), *own)
  return reading.Reader(scorer, logs, names)


def _of_run(request: Request) -> _Model:
  from dare_jax import trained
  from dare_jax.prediction.scorers import run_scorer

  assert request.workdir is not None
  run = trained.load(request.workdir, request.checkpoint)
  scorer = run_scorer.RunScorer(run)
  if request.history and scorer.has_clusters:
    raise errors.UsageError(
      f'--history={request.history}: this model searches clusters, which are'
      " known for the behaviors of the run's own log alone; leave it out, or"
      ' train a model with another search.'
    )
  return scorer, (scorer.own_log(),), run.experiment.config.data


def _of_bundle(request: Request) -> _Model:
  from dare_jax import bundle
  from dare_jax.prediction.scorers import bundle_scorer

  assert request.bundle is not None
  return bundle_scorer.BundleScorer(bundle.open(request.bundle)), (), None
