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
from typing import TYPE_CHECKING

from absl import flags

from dare_jax import cli
from dare_jax.prediction import request as request_lib
from dare_jax.process import runtime

if TYPE_CHECKING:
  from dare_jax.prediction import job
  from dare_jax.runs import interrupt

Request = request_lib.Request


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

  path, shard = request_lib.check(request), job.Shard.parse(request.shard)
  reader = request_lib.open_reader(request)
  source = columns.open_source('input', request.input, reader.names)
  candidates = None
  if request.candidates:
    assert request.top is not None
    candidates = top.read(reader, request.candidates, request.top)
  made = job.Job(reader, source, path, shard, candidates, block_rows)
  if stop is not None:
    made = dataclasses.replace(made, check_stop=stop.check)
  return job.run(made)


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
  request_lib.check(request)
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
