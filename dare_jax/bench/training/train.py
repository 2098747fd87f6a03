"""Training throughput on random data: the real pipeline and the real step.

Every list flag is swept, in all combinations; each point runs in a process of
its own, so that its peak memory is its own. The fields of a config that have
no flag here can be set as `--config.optim.table_dtype=bfloat16`.

    python -m dare_jax.bench train --rows=100000,4000000 --figure=train.png
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import itertools
import pathlib
import tempfile
from typing import Any

from absl import flags
import ml_collections

from dare_jax import config_flag
from dare_jax import errors
from dare_jax import models
from dare_jax import plots
from dare_jax.bench import process
from dare_jax.bench import random_log
from dare_jax.bench.training import step_timing
from dare_jax.bench.training import train_figure
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.data.ids import known_ids
from dare_jax.experiments import config_check
from dare_jax.experiments import model_section
from dare_jax.experiments import options as run_options
from dare_jax.process import runtime
from dare_jax.store import history_store
from dare_jax.training import feed
from dare_jax.training import state as train_state

# Swept: the flag, its default, its help; in the order of `Point`.
_SWEPT = (
  ('models', ['dare'], 'Presets.'),
  ('lengths', ['200'], 'Behaviors in a history.'),
  ('dims', ['16'], 'Widths of each vector.'),
  ('moments', ['683'], 'Moments a step.'),
  ('moments_per_window', ['1'], 'Moments that share a history.'),
  ('optimizers', ['lazy_adam'], 'Optimizers of tables.'),
  ('rows', ['68000'], 'Rows of the item tables.'),
)
_TEXT = ('models', 'optimizers')
# Length of the run for a learning rate's schedule: none ends while timed.
_STEPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Point:
  """One combination of the values that are swept.

  Attributes:
    preset: name of the model.
    length: number of behaviors in a history.
    dim: width of each vector, in both roles.
    moments: number of moments of a step.
    moments_per_window: number of moments that share a history.
    optimizer: optimizer of the tables, a key of `tables.OPTIMIZERS`.
    rows: number of rows of the item tables.
  """

  preset: str
  length: int
  dim: int
  moments: int
  moments_per_window: int
  optimizer: str
  rows: int


@dataclasses.dataclass(frozen=True)
class Training:
  """A training that is timed.

  Attributes:
    point: the values that are swept.
    shape: sizes of the random log.
    model: the model that is trained.
    options: how it is trained, and on which rows.
    settings: settings of the process.
  """

  point: Point
  shape: random_log.Shape
  model: models.RankerConfig
  options: run_options.RunOptions
  settings: runtime.Options


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = config_flag.define()
  swept = {
    name: flags.DEFINE_list(name, default, text)
    for name, default, text in _SWEPT
  }
  distinct = flags.DEFINE_integer(
    'distinct',
    None,
    'Items that occur, whatever the rows; all that fit into the smallest table'
    ' of the sweep by default.',
    lower_bound=1,
  )
  categories = flags.DEFINE_integer(
    'categories', 2_245, 'Rows of the category tables.', lower_bound=3
  )
  seconds = flags.DEFINE_float('seconds', 10.0, 'Time for each point.')
  profile = flags.DEFINE_string(
    'profile', None, 'Write traces for TensorBoard or XProf into this folder.'
  )
  figure = flags.DEFINE_string('figure', None, 'Draw the rows into this PNG.')

  def measure() -> list[dict[str, Any]]:
    """Returns a row for each point of the sweep."""
    if figure.value is not None:
      plots.require('--figure')
    values = {name: parse(name, flag.value) for name, flag in swept.items()}
    seen = distinct.value or min(values['rows']) - 2
    trainings = [
      of_config(
        config.value,
        point,
        random_log.Shape(point.rows, categories.value, seen),
      )
      for point in itertools.starmap(Point, itertools.product(*values.values()))
    ]
    rows = [
      process.run_fresh(
        one.settings, measure_one, one, seconds.value, profile.value
      )
      for one in trainings
    ]
    for row in rows:
      rate = rows[0]['examples_per_s'] / row['examples_per_s']
      row['times_slower_than_first'] = rate
    if figure.value is not None:
      train_figure.draw(rows, pathlib.Path(figure.value))
    return rows

  return measure


def parse(name: str, values: list[str]) -> list[Any]:
  """Returns a list flag's values.

  Raises:
    UsageError: none, or not a number of 1 or more where one is meant.
  """
  if not values:
    raise errors.UsageError(f'--{name} is empty; give one value or more.')
  if name in _TEXT:
    return values
  for value in values:
    if not value.isdecimal() or int(value) < 1:
      raise errors.UsageError(
        f'--{name}={",".join(values)}: expected whole numbers of 1 or more,'
        f' as in --{name}=100,200; {value!r} is none.'
      )
  return [int(value) for value in values]


def of_config(
  config: ml_collections.ConfigDict, point: Point, shape: random_log.Shape
) -> Training:
  """Returns the training at a point of the sweep.

  Args:
    config: gives everything that is not swept.
    point: the values that are swept.
    shape: sizes of the random log.

  Raises:
    UsageError: a bad config, or values that exclude each other.
  """
  config_check.check_fields(config)
  own = run_options.of_config(config)
  options = dataclasses.replace(
    own,
    data=dataclasses.replace(
      own.data, split='leave_last', history_length=point.length
    ),
    train=dataclasses.replace(
      own.train,
      batch_size=point.moments,
      moments_per_window=point.moments_per_window,
    ),
    optim=dataclasses.replace(own.optim, tables=point.optimizer),
  )
  model = model_section.build(
    config,
    shape.vocab_sizes,
    name=point.preset,
    attention_dim=point.dim,
    representation_dim=point.dim,
  ).config
  config_check.check_together(options, model.top_k)
  settings = runtime.of_section(config.runtime)
  return Training(point, shape, model, options, settings)


def measure_one(
  training: Training, seconds: float, profile: str | None = None
) -> dict[str, Any]:
  """Returns the row of one training.

  Args:
    training: the training to time, on a random log that is made here.
    seconds: time for the timing of whole steps.
    profile: a folder for a trace; None: no trace.
  """
  point, shape = training.point, training.shape
  with tempfile.TemporaryDirectory() as folder:
    store = random_log.write(
      pathlib.Path(folder), shape, random_log.events(training.options.data)
    )
    timer, targets = timer_of(training, store)
    whole = timer.whole(seconds, profile)
    found = whole | timer.parts() | timer.moved()
  return {
    'model': point.preset,
    'history_length': point.length,
    'dim': point.dim,
    'moments_per_window': point.moments_per_window,
    'optimizer': point.optimizer,
    'rows': shape.rows,
    'targets_per_step': targets,
    'examples_per_s': targets * found.pop('steps_per_s'),
    **found,
    'peak_rss_mb': process.peak_mb(),
  }


def timer_of(
  training: Training, store: history_store.HistoryStore
) -> tuple[step_timing.Timer, int]:
  """Returns what times the steps of a training, and the targets of a step.

  Args:
    training: the training to time.
    store: the store of its log.
  """
  options = training.options
  model = models.Ranker(training.model)
  trainer = train_state.Trainer(model, options.optim, _STEPS)
  moments = splits.make_splits(store, options.data)['train']
  train = pipeline.Pipeline(
    store,
    moments,
    'train',
    options.data,
    options.seed,
    options.train.moments_per_window,
    pipeline.Layout(with_times=bool(model.config.real_time)),
    known=known_ids.of_training(store, moments, options.data),
  )
  size = options.train.batch_size
  on_host = options.optim.unique_rows == 'host'
  timer = step_timing.Timer(
    trainer,
    feed.Placer(trainer.mesh, trainer.vocab_sizes if on_host else {}),
    lambda step: train.train_batch(step, size),
    options.prefetch,
    options.seed,
  )
  rows = train.examples_a_step(size)
  return timer, round(rows * train.targets_per_example)
