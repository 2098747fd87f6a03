"""Training throughput on random data: the real pipeline and the real step.

Nothing is learnt; ids follow a Zipf law, so that tables are read as in a log.
"""

from __future__ import annotations

from collections.abc import Callable
import pathlib
import resource
import statistics
import tempfile
import time
from typing import Any

from absl import flags
import ml_collections
import numpy as np
import polars as pl

from dare_jax import runtime
from dare_jax.configs import base
from dare_jax.data import history_store
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.data import store_writer

_NUM_USERS = 2_000


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  model = flags.DEFINE_list('models', ['dare', 'twin'], 'Presets.')
  length = flags.DEFINE_list('lengths', ['200'], 'Behaviors in a history.')
  items = flags.DEFINE_integer('items', 68_000, 'Rows of the item table.')
  dim = flags.DEFINE_integer('dim', 16, 'Width of each vector.')
  moments = flags.DEFINE_integer('moments', 683, 'Moments a step.')
  shared = flags.DEFINE_integer(
    'moments_per_window', 1, 'Moments that share a history.'
  )
  seconds = flags.DEFINE_float('seconds', 10.0, 'Time for each row.')

  def measure() -> list[dict[str, Any]]:
    rows = []
    for history_length in map(int, length.value):
      for name in model.value:
        config = base.get_config()
        config.model.name = name
        config.model.attention_dim = dim.value
        config.model.representation_dim = dim.value
        config.train.batch_size = moments.value
        config.train.moments_per_window = shared.value
        config.data.history_length = history_length
        config.data.split = 'leave_last'
        rows.append(measure_one(config, items.value, seconds.value))
    return rows

  return measure


def measure_one(
  config: ml_collections.ConfigDict, num_items: int, seconds: float
) -> dict[str, Any]:
  """Returns the row of one configuration."""
  runtime.configure(config.runtime)
  from dare_jax.training import experiment
  from dare_jax.training import state as train_state

  with tempfile.TemporaryDirectory() as folder:
    store = random_store(pathlib.Path(folder), num_items, config)
    moments = splits.make_splits(store, config.data)['train']
    train = pipeline.Pipeline(
      store,
      moments,
      'train',
      config.data,
      config.seed,
      config.train.moments_per_window,
    )
    vocab = {field: store.vocab_sizes[field] for field in store.fields}
    model = experiment.build_options(config, vocab)
    trainer = train_state.Trainer(model, config.optim, 1)
    timing = _time_steps(trainer, train, config, seconds)
  return {
    'model': config.model.name,
    'history_length': config.data.history_length,
    'items': num_items,
    'dim': config.model.attention_dim,
    'moments_per_window': config.train.moments_per_window,
    'targets_per_step': _targets_per_step(train, config),
    **timing,
    'peak_rss_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }


def _time_steps(
  trainer: Any, train: pipeline.Pipeline, config: Any, seconds: float
) -> dict[str, float]:
  """Times steps one by one; each ends before the next batch is asked for.

  So the time spent waiting for data is all time in which the device is idle.
  """
  size = config.train.batch_size
  batch = train.train_batch(0, size)
  state = trainer.init(config.seed, batch)
  step_fn = trainer.train_step.lower(state, batch).compile()

  def make(step: int) -> Any:
    return train.train_batch(step, size)

  times: list[float] = []
  with pipeline.Prefetcher(make, 0, config.data.prefetch) as batches:
    for _ in range(3):
      state, loss = step_fn(state, batches.next())
    loss.block_until_ready()
    batches.wait_s = 0.0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < 5:
      start = time.perf_counter()
      state, loss = step_fn(state, batches.next())
      loss.block_until_ready()
      times.append(time.perf_counter() - start)
    total = time.perf_counter() - begin
    wait = batches.wait_s
  targets = _targets_per_step(train, config)
  return {
    'step_ms': 1e3 * statistics.median(times),
    'examples_per_s': targets * len(times) / total,
    'wait_share': wait / total,
  }


def _targets_per_step(train: pipeline.Pipeline, config: Any) -> int:
  rows = train.examples_a_step(config.train.batch_size)
  return round(rows * train.targets_per_example)


def random_store(
  folder: pathlib.Path, num_items: int, config: ml_collections.ConfigDict
) -> history_store.HistoryStore:
  """Writes and opens a store of random events, Zipf items."""
  rng = np.random.default_rng(0)
  num_categories = 2_243
  events = max(config.data.min_events, 2 * config.data.history_length)
  fields = ('item', 'category')
  writer = store_writer.StoreWriter(folder / 'store', fields, (), False)
  for _ in range(_NUM_USERS):
    item = (rng.zipf(1.2, events) % num_items + 2).astype(np.int32)
    example = {
      'item_id': item,
      'category_id': item % num_categories + 2,
      'timestamp': np.arange(events, dtype=np.int64),
    }
    writer.add([example])
  raw_ids = {
    'user': pl.Series(range(_NUM_USERS)),
    'item': pl.Series(range(num_items)),
    'category': pl.Series(range(num_categories)),
  }
  return writer.commit(raw_ids, {'dataset': 'random'})
