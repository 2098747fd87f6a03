"""Training throughput on random data: the real pipeline and the real step.

Every list flag is swept, in all combinations; each point runs in a process of
its own, so that its peak memory is its own. The fields of a config that have
no flag here can be set as `--config.optim.table_dtype=bfloat16`.

    python -m dare_jax.bench train --rows=100000,4000000 --figure=train.png
"""

from __future__ import annotations

from collections.abc import Callable
import itertools
import pathlib
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from absl import flags
import ml_collections

from dare_jax import cli
from dare_jax import errors
from dare_jax import plots
from dare_jax.bench import process
from dare_jax.bench import random_log
from dare_jax.bench import train_figure
from dare_jax.data import options as data_options
from dare_jax.process import runtime
from dare_jax.store import history_store

if TYPE_CHECKING:  # At run time, after the allocator is set.
  from dare_jax.bench import step_timing

# Swept: the flag, its default, the fields of a config that it sets, its help.
_SWEPT = (
  ('models', ['dare'], ('model.name',), 'Presets.'),
  ('lengths', ['200'], ('data.history_length',), 'Behaviors in a history.'),
  (
    'dims',
    ['16'],
    ('model.attention_dim', 'model.representation_dim'),
    'Widths of each vector.',
  ),
  ('moments', ['683'], ('train.batch_size',), 'Moments a step.'),
  (
    'moments_per_window',
    ['1'],
    ('train.moments_per_window',),
    'Moments that share a history.',
  ),
  ('optimizers', ['lazy_adam'], ('optim.tables',), 'Optimizers of tables.'),
  ('rows', ['68000'], (), 'Rows of the item tables.'),
)
_TEXT = ('models', 'optimizers')
# Length of the run for a learning rate's schedule: none ends while timed.
_STEPS = 1_000_000


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = cli.define_config()
  swept = {
    name: flags.DEFINE_list(name, default, text)
    for name, default, _, text in _SWEPT
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
    if figure.value is not None:
      plots.require('--figure')
    values = {name: parse(name, flag.value) for name, flag in swept.items()}
    seen = distinct.value or min(values['rows']) - 2
    rows = []
    for point in itertools.product(*values.values()):
      named = dict(zip(values, point, strict=True))
      shape = random_log.Shape(named['rows'], categories.value, seen)
      own = _config_at(config.value, named)
      rows.append(
        process.run_fresh(
          runtime.of_section(own.runtime),
          measure_one,
          own,
          shape,
          seconds.value,
          profile.value,
        )
      )
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


def _config_at(
  config: ml_collections.ConfigDict, point: dict[str, Any]
) -> ml_collections.ConfigDict:
  made = config.copy_and_resolve_references()
  made.data.split = 'leave_last'
  for name, _, fields, _ in _SWEPT:
    for field in fields:
      made.update_from_flattened_dict({field: point[name]})
  return made


def measure_one(
  config: ml_collections.ConfigDict,
  shape: random_log.Shape,
  seconds: float,
  profile: str | None = None,
) -> dict[str, Any]:
  """Returns the row of one configuration.

  Args:
    config: of the run.
    shape: of the log.
    seconds: for the timing of whole steps.
    profile: a folder for a trace, if any.

  Raises:
    UsageError: a bad config.
  """
  with tempfile.TemporaryDirectory() as folder:
    store = random_log.write(
      pathlib.Path(folder),
      shape,
      random_log.events(data_options.of_section(config.data)),
    )
    timer, targets = timer_of(config, store)
    whole = timer.whole(seconds, profile)
    found = whole | timer.parts() | timer.moved()
  return {
    'model': config.model.name,
    'history_length': config.data.history_length,
    'dim': config.model.attention_dim,
    'moments_per_window': config.train.moments_per_window,
    'optimizer': config.optim.tables,
    'rows': shape.rows,
    'targets_per_step': targets,
    'examples_per_s': targets * found.pop('steps_per_s'),
    **found,
    'peak_rss_mb': process.peak_mb(),
  }


def timer_of(
  config: ml_collections.ConfigDict, store: history_store.HistoryStore
) -> tuple[step_timing.Timer, int]:
  """Returns what times the steps of a config on a store, and their targets.

  Raises:
    UsageError: a bad config.
  """
  from dare_jax.bench import step_timing
  from dare_jax.data import pipeline
  from dare_jax.data import splits
  from dare_jax.data.ids import known_ids
  from dare_jax.experiments import config_check
  from dare_jax.experiments import model_section
  from dare_jax.experiments import options as run_options
  from dare_jax.training import feed
  from dare_jax.training import state as train_state

  config_check.check(config)
  options = run_options.of_config(config)
  vocab = {field: store.vocab_sizes[field] for field in store.fields}
  model = model_section.build(config, vocab)
  trainer = train_state.Trainer(model, options.optim, _STEPS)
  moments = splits.make_splits(store, options.data)['train']
  train = pipeline.Pipeline(
    store,
    moments,
    'train',
    options.data,
    options.seed,
    options.train.moments_per_window,
    known=known_ids.of_training(store, moments, options.data),
  )
  size = options.train.batch_size
  on_host = options.optim.unique_rows == 'host'
  timer = step_timing.Timer(
    trainer,
    feed.Placer(trainer.mesh, trainer.tables.vocab_sizes if on_host else {}),
    lambda step: train.train_batch(step, size),
    options.prefetch,
    options.seed,
  )
  rows = train.examples_a_step(size)
  return timer, round(rows * train.targets_per_example)
