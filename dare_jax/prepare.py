"""Prepares a log for training and prints its data card.

    python -m dare_jax.prepare (--dataset=NAME | --config=FILE
                                [--config.a.b=v ...])
                               [--input=PATH] [--data_dir=DIR]

Reads the raw log into a TFDS dataset (one example a user) and a history
store, which `dare_jax.train` with the same config opens.
"""

from __future__ import annotations

import importlib

from absl import flags
import ml_collections

from dare_jax import cli
from dare_jax import config_flag
from dare_jax import errors


def prepare(config: ml_collections.ConfigDict) -> str:
  """Prepares the data of a config, anew if it is there; returns its card.

  Raises:
    UsageError: bad config or input, or a folder that can't be written.
  """
  from dare_jax.data import data_card
  from dare_jax.data import options as data_options
  from dare_jax.experiments import config_check
  from dare_jax.logs import options as log_options
  from dare_jax.store import datasets
  from dare_jax.store import item_vectors
  from dare_jax.store import vector_store

  config_check.check(config)
  store = datasets.prepare(log_options.of_section(config.data))
  if config.data.item_vectors is not None:
    vectors = item_vectors.open_or_prepare(
      config.data.item_vectors, config.data.data_dir
    )
    store = vector_store.attach(store, vectors)
  return data_card.data_card(store, data_options.of_section(config.data))


def _config() -> ml_collections.ConfigDict:
  if _CONFIG.value is not None and _DATASET.value:
    raise errors.UsageError('--dataset and --config: give one of the two.')
  if _CONFIG.value is not None:
    config = _CONFIG.value
  elif _DATASET.value:
    config = _dataset_config(_DATASET.value)
  else:
    raise errors.UsageError('give --dataset=NAME or --config=FILE; see --help.')
  if _INPUT.value:
    config.data.input = _INPUT.value
  if _DATA_DIR.value:
    config.data.data_dir = _DATA_DIR.value
  return config


def _dataset_config(name: str) -> ml_collections.ConfigDict:
  from dare_jax.store import datasets

  datasets.builder_class(name)
  module = 'synthetic' if name == 'synthetic_lifelong' else name
  return importlib.import_module(f'dare_jax.configs.{module}').get_config()


def main() -> None:
  """Prepares as the flags say and prints the data card."""
  print(prepare(_config()))


if __name__ == '__main__':
  _CONFIG = config_flag.define()
  _DATASET = flags.DEFINE_string(
    'dataset', None, 'A built-in dataset; uses configs/NAME.py.'
  )
  _INPUT = flags.DEFINE_string(
    'input', None, 'The raw log: a file; or a folder or pattern (csv_log).'
  )
  _DATA_DIR = flags.DEFINE_string(
    'data_dir', None, 'Folder of the prepared data.'
  )
  cli.run(main)
