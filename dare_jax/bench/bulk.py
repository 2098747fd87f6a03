"""`predict` beside `evaluate`, on the same rows.

    python -m dare_jax.bench predict [--workdir=RUN]

Evaluation has a history for each row, as files of single rows have it
(`data.group_candidates=False`); `predict` reads a Parquet file of the same
users, items and times. Both have their programs compiled, and take turns.
Without --workdir a run is made of a made log. Both must give the same logits.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import dataclasses
import io
import pathlib
import tempfile
import time
from typing import Any

from absl import flags
import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax import train
from dare_jax.configs import base
from dare_jax.data import pipeline
from dare_jax.logs import id_map
from dare_jax.prediction import columns
from dare_jax.prediction import job
from dare_jax.prediction import request as request_lib
from dare_jax.runs import interrupt
from dare_jax.runs import saved_run

_ITEMS, _CATEGORIES, _MORE_EVENTS = 50_000, 500, 10
_CLOSE = 1e-4


@dataclasses.dataclass(frozen=True)
class Made:
  """Sizes of a run that is made.

  Attributes:
    users: number of users; one moment of each is scored.
    candidates: number of candidates of each moment.
    history_length: number of behaviors that a moment sees.
  """

  users: int = 300
  candidates: int = 100
  history_length: int = 200


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  workdir = flags.DEFINE_string(
    'workdir', None, 'Workdir of the run that scores; None: one is made.'
  )
  lengths = flags.DEFINE_list(
    'lengths', ['200'], 'History lengths of the runs that are made.'
  )
  users = flags.DEFINE_integer(
    'users', 300, 'Users of the log that is made.', 10
  )
  candidates = flags.DEFINE_integer(
    'candidates', 100, 'Candidates of a moment.', 2
  )
  rounds = flags.DEFINE_integer('rounds', 3, 'Turns of each side.', 1)

  def measure_all() -> list[dict[str, Any]]:
    """Returns the rows of each length, or of the run that is given."""
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      if workdir.value is not None:
        return measure(pathlib.Path(workdir.value), folder, rounds.value)
      rows = []
      for length in parse_lengths(lengths.value):
        sizes = Made(users.value, candidates.value, length)
        own = folder / str(length)
        own.mkdir()
        rows += measure(make(own, sizes), own, rounds.value)
      return rows

  return measure_all


def parse_lengths(values: list[str]) -> list[int]:
  """Returns the numbers of --lengths.

  Raises:
    UsageError: none, or one that is not above 0.
  """
  if not values or not all(v.isdecimal() and int(v) > 0 for v in values):
    raise errors.UsageError(
      f'--lengths={",".join(values)}: expected numbers above 0, behaviors.'
    )
  return [int(value) for value in values]


def make(folder: pathlib.Path, sizes: Made) -> pathlib.Path:
  """Trains the base model for a step on a made log; returns the workdir."""
  events = sizes.history_length + _MORE_EVENTS
  count = sizes.users * events
  item = np.random.default_rng(0).integers(_ITEMS, size=count)
  pl.DataFrame(
    {
      'user_id': np.repeat(np.arange(sizes.users), events),
      'item_id': item,
      'category_id': item % _CATEGORIES,
      'timestamp': np.tile(np.arange(events), sizes.users),
    }
  ).write_csv(folder / 'log.csv')
  config = base.get_config()
  config.update_from_flattened_dict(
    {
      'data.name': 'csv_log',
      'data.input': str(folder / 'log.csv'),
      'data.data_dir': str(folder / 'data'),
      'data.history_length': sizes.history_length,
      'data.num_negatives': sizes.candidates - 1,
      'data.max_train_moments': 1,
      'data.min_events': events,
      'train.steps': 1,
      'train.batch_size': 8,
      'eval.every_steps': 0,
      'checkpoint.every_steps': 0,
    }
  )
  with contextlib.redirect_stdout(io.StringIO()):
    train.train_and_evaluate(config, folder / 'run', interrupt.StopSignal())
  return folder / 'run'


def measure(
  workdir: pathlib.Path, folder: pathlib.Path, rounds: int
) -> list[dict[str, Any]]:
  """Returns a row for each side and turn.

  Args:
    workdir: the workdir of the run that scores.
    folder: a folder for the files that are scored and written.
    rounds: how often each side has its turn.

  Raises:
    UsageError: no run there, or the two disagree.
  """
  single, bulk = _Evaluated(workdir), _Predicted(workdir, folder)
  single.frame(bulk.column_of).write_parquet(folder / 'rows.parquet')
  sides: dict[str, _Evaluated | _Predicted] = {
    'evaluate': single,
    'predict': bulk,
  }
  # Compiles, too.
  expected, found = (side.score()[0] for side in sides.values())
  gap = float(np.max(np.abs(found - expected)))
  if gap > _CLOSE * max(1.0, float(np.max(np.abs(expected)))):
    raise errors.UsageError(
      f'{workdir}: predict and evaluate differ by {gap:.3g} in a logit; this is'
      ' a fault of dare_jax.'
    )
  rows = []
  for _ in range(rounds):
    turn: list[dict[str, Any]] = []
    for name, side in sides.items():
      scores, seconds, cpu = side.score()
      turn.append(
        {
          'side': name,
          'history_length': single.history_length,
          'rows': len(scores),
          'rows_per_s': len(scores) / seconds,
          'cpu_us_per_row': 1e6 * cpu / len(scores),
        }
      )
    for row in turn:
      row['times'] = row['rows_per_s'] / turn[0]['rows_per_s']
      row['times_cpu'] = turn[0]['cpu_us_per_row'] / row['cpu_us_per_row']
    rows += turn
  return rows


class _Evaluated:
  """The test rows of a run, each with a history of its own."""

  def __init__(self, workdir: pathlib.Path) -> None:
    saved = saved_run.restore(workdir, 'last')
    parts = saved.experiment
    options = dataclasses.replace(parts.options.data, group_candidates=False)
    test, model = parts.pipelines['test'], parts.trainer.model.config
    self._test = pipeline.Pipeline(
      parts.store, test.moments, 'test', options, parts.options.seed, 1,
      layout=pipeline.Layout(with_times=bool(model.real_time)),
      known=parts.known,
    )  # fmt: skip
    self._parts = dataclasses.replace(parts, pipelines={'test': self._test})
    self._state = saved.state
    self.history_length = options.history_length

  def score(self) -> tuple[np.ndarray, float, float]:
    """Returns logits, seconds, and CPU seconds."""
    begin, cpu = time.perf_counter(), time.process_time()
    found = self._parts.predict(self._state, 'test')
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return found.logit[found.weight > 0], seconds, cpu

  def frame(self, column_of: Callable[[str], str]) -> pl.DataFrame:
    """Returns the rows as a log has them.

    Args:
      column_of: gives the name of a role's column, or of a field's.
    """
    store = self._parts.store
    fields = (*store.fields, *store.context_fields)
    raw = {field: store.raw_ids(field) for field in ('user', *fields)}
    frames = []
    for item in self._test.eval_batches(self._parts.config.eval.batch_size):
      real = np.asarray(item.batch.targets.weight) > 0
      ids = {'user': item.user + id_map.FIRST, **item.stored.targets.ids}
      for field, own in item.stored.context.items():
        ids[field] = np.broadcast_to(own[..., None], real.shape)
      frames.append(
        pl.DataFrame(
          {
            column_of(field): raw[field].gather(
              np.reshape(own, real.shape)[real] - id_map.FIRST
            )
            for field, own in ids.items()
          }
        )
      )
    times = store.behaviors.columns['timestamp'][self._test.moments.target]
    each = self._test.num_examples // len(times)
    return pl.concat(frames).with_columns(
      pl.Series(column_of('time'), np.repeat(times, each)).cast(pl.Int64)
    )


class _Predicted:
  """Scores a file by a run, with its programs kept between turns."""

  def __init__(self, workdir: pathlib.Path, folder: pathlib.Path) -> None:
    self._source, self._output = folder / 'rows.parquet', folder / 'out.parquet'
    self._reader = request_lib.open_reader(
      request_lib.Request(
        str(self._source), str(self._output), str(workdir), checkpoint='last'
      )
    )

  def column_of(self, role: str) -> str:
    """Returns the first name that the column of a role or field may have."""
    return self._reader.names.by_role[role][0]

  def score(self) -> tuple[np.ndarray, float, float]:
    """Returns logits, seconds and CPU seconds."""
    source = columns.open_source('input', str(self._source), self._reader.names)
    made = job.Job(
      self._reader, source, self._output, job.Shard.parse(None), None
    )
    self._output.unlink(missing_ok=True)
    begin, cpu = time.perf_counter(), time.process_time()
    job.run(made)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    logits = pl.read_parquet(self._output)['logit'].to_numpy()
    return logits, seconds, cpu
