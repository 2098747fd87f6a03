"""Scores the rows of a file: one a user and an item, in bulk.

    python -m dare_jax.predict (--bundle=BUNDLE | --workdir=DIR)
        --input=FILE --output=FILE [--history=LOG] [--shard=i/n]
        [--candidates=FILE --top=N]

The input is CSV or Parquet with a user and an item in each row, perhaps a
category, a time and further fields. The output has all its columns and rows, in
their order, and `logit` and `probability` beside them. Histories are those of
the run's prepared log, or of the log that --history names; with a time, only
what happened strictly before it counts. Killed, the same command goes on.

With --candidates, the rows are users, and the output has the N best candidates
of each. See docs/predict.md.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any
from typing import TYPE_CHECKING

from absl import flags

from dare_jax import cli
from dare_jax import errors
from dare_jax.process import runtime

if TYPE_CHECKING:
  from dare_jax.prediction import history_log
  from dare_jax.prediction import job
  from dare_jax.prediction import reading
  from dare_jax.prediction import scorer as scorer_lib
  from dare_jax.runs import interrupt

  # A model, the log that it comes with, and the config's data section.
  _Model = tuple[
    scorer_lib.Scorer, tuple[history_log.HistoryLog, ...], Any | None
  ]


@dataclasses.dataclass(frozen=True)
class Request:
  """What the flags ask for; each is named as its flag."""

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


def predict(
  request: Request,
  stop: interrupt.StopSignal | None = None,
  block_rows: int | None = None,
) -> job.Done:
  """Scores an input; goes on where a run of the same request was ended.

  Args:
    request: what is to be done.
    stop: asked between batches whether to give up.
    block_rows: rows of a part; None: as many as are good.

  Raises:
    UsageError: wrong flags, or bad input.
    Stopped: `stop` was asked to; what was scored is kept.
  """
  from dare_jax.prediction import columns
  from dare_jax.prediction import job
  from dare_jax.prediction import top

  path, shard = _check(request), job.Shard.parse(request.shard)
  reader = open_reader(request)
  source = columns.open_source('input', request.input, reader.names)
  candidates = None
  if request.candidates:
    assert request.top is not None
    candidates = top.read(reader, request.candidates, request.top)
  made = job.Job(reader, source, path, shard, candidates, block_rows)
  if stop is not None:
    made = dataclasses.replace(made, check_stop=stop.check)
  return job.run(made)


def _check(request: Request) -> pathlib.Path:
  """Refuses what can be seen before anything is read; returns the output."""
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
  """Returns what reads an input for the model of a run or of a bundle."""
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
  from dare_jax.prediction import run_scorer

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
  from dare_jax.prediction import bundle_scorer

  assert request.bundle is not None
  return bundle_scorer.BundleScorer(bundle.open(request.bundle)), (), None


def summary(done: job.Done) -> str:
  """Returns what to say at the end."""
  unknown = done.unknown
  lines = [f'{done.path}: {done.rows:,} rows, {done.rate:,.0f} rows/s']
  if unknown.users:
    lines.append(
      f'rows of users that the log does not have: {unknown.users:,}, such as'
      f' {", ".join(unknown.examples["users"])}; scored with an empty history'
    )
  if unknown.items:
    lines.append(
      f'rows of items that the model does not know: {unknown.items:,}, such as'
      f' {", ".join(unknown.examples["items"])}; scored as the unknown item'
    )
  return '\n'.join(lines)


def main() -> None:
  """Scores as the flags say."""
  request = Request(
    **{
      field.name: getattr(flags.FLAGS, field.name)
      for field in dataclasses.fields(Request)
    }
  )
  _check(request)
  from dare_jax.runs import interrupt

  stop = interrupt.StopSignal()
  stop.install()
  if request.workdir:
    from dare_jax.experiments import run_config

    config = run_config.load(request.workdir)
    runtime.configure(runtime.of_section(config.runtime))
  print(summary(predict(request, stop)))


if __name__ == '__main__':
  flags.DEFINE_string('bundle', None, 'What dare_jax.export has written.')
  flags.DEFINE_string('workdir', None, 'Folder of a run.')
  flags.DEFINE_string(
    'checkpoint', 'best', 'Checkpoint of the run: best, last or STEP.'
  )
  flags.DEFINE_string(
    'input', None, 'CSV or Parquet: a user and an item a row.'
  )
  flags.DEFINE_string(
    'output', None, 'File to write: *.csv, *.csv.gz or *.parquet.'
  )
  flags.DEFINE_string(
    'history',
    None,
    'The log of histories, as prepare reads it; default: the'
    " run's own. Needed with --bundle.",
  )
  flags.DEFINE_string(
    'candidates', None, 'CSV or Parquet of items: the best --top for each row.'
  )
  flags.DEFINE_integer('top', None, 'How many of --candidates to keep.')
  flags.DEFINE_string(
    'columns',
    None,
    'Names of columns, user=NAME,item=NAME,time= and so on; default: those of'
    " the run's log. An empty name: there is no such column.",
  )
  flags.DEFINE_string(
    'data_dir',
    None,
    'Where the log of --history is kept prepared; default: the'
    " folder of the run's data.",
  )
  flags.DEFINE_string('shard', None, 'i/n: part i, from 1 on, of n.')
  cli.run(main)
