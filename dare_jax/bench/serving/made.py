"""A bundle to measure with, where none is given: of a log that is made.

Nothing can be learnt from it; how long a request takes depends on sizes alone.
"""

from __future__ import annotations

import contextlib
import io
import pathlib

import ml_collections
import numpy as np
import polars as pl

from dare_jax import train
from dare_jax.bundle.making import exporting
from dare_jax.configs import base
from dare_jax.runs import interrupt

_CATEGORIES, _EVENTS = 1_000, 60
# Users with targets: more of them take longer to train, and change nothing.
_TRAINED_USERS = 20


def write(folder: pathlib.Path, items: int, history_length: int) -> str:
  """Trains DARE for a step and exports it; returns the bundle's path.

  Attention has 8 dims a field and representation 16, fields are item and
  category, 20 behaviors are kept.

  Args:
    folder: the folder in which the log, the run and the bundle are made.
    items: number of items of the log.
    history_length: number of behaviors that the model is shown.
  """
  log = folder / 'log.csv'
  _write_log(log, items)
  config = _config(folder, log, history_length)
  with contextlib.redirect_stdout(io.StringIO()):
    train.train_and_evaluate(config, folder / 'run', interrupt.StopSignal())
    options = exporting.Options('last', shapes='1x32,1x128,1x512')
    exporting.export(folder / 'run', folder / 'bundle', options)
  return str(folder / 'bundle')


def _write_log(path: pathlib.Path, items: int) -> None:
  rng = np.random.default_rng(0)
  first = rng.integers(items, size=_TRAINED_USERS * _EVENTS)
  # The others have each item once, and too few events to be trained on.
  item = np.concatenate([first, np.arange(items)])
  user = np.arange(len(item)) // _EVENTS
  user[len(first) :] = _TRAINED_USERS + np.arange(items) // (_EVENTS // 2)
  pl.DataFrame(
    {
      'user_id': user,
      'item_id': item,
      'category_id': item % _CATEGORIES,
      'timestamp': np.arange(len(item)),
    }
  ).write_csv(path)


def _config(
  folder: pathlib.Path, log: pathlib.Path, history_length: int
) -> ml_collections.ConfigDict:
  config = base.get_config()
  config.update_from_flattened_dict(
    {
      'data.name': 'csv_log',
      'data.input': str(log),
      'data.data_dir': str(folder / 'data'),
      'data.history_length': history_length,
      'data.min_events': _EVENTS,
      'data.min_history': _EVENTS // 2,
      'data.max_padding': 0.5,
      'data.max_train_moments': 1,
      'data.unknown_rate': 0.0,
      'model.attention_dim': 8,
      'model.representation_dim': 16,
      'train.steps': 1,
      'train.batch_size': 4,
      'train.log_every_steps': 1,
      'eval.batch_size': 4,
      'eval.every_steps': 0,
      'checkpoint.every_steps': 0,
    }
  )
  return config
