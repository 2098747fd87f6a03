"""The official PyTorch code's side of `bench peer`: its training on a store."""

from __future__ import annotations

import pathlib

import ml_collections
import numpy as np

from dare_jax.bench.published import official
from dare_jax.data import options as data_options
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.store import history_store

_BATCHES = 4


class Side(official.Training):
  """The official training on a store."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    checkout: pathlib.Path,
    store: pathlib.Path,
  ) -> None:
    """Reads some batches and builds the model.

    Args:
      config: the config of our side, which gives the sizes.
      checkout: folder of the official code, from `official.check`.
      store: folder of the history store.

    Raises:
      UsageError: the official model does not take these sizes.
    """
    opened = history_store.open_store(store)
    rows = opened.vocab_sizes
    sizes = official.Sizes(
      items=rows['item'],
      categories=rows['category'],
      dim=config.model.attention_dim,
      length=config.data.history_length,
      top_k=config.model.top_k,
    )
    super().__init__(checkout, _batches(config, opened), sizes)


def _batches(
  config: ml_collections.ConfigDict, store: history_store.HistoryStore
) -> list[dict[str, np.ndarray]]:
  options = data_options.of_section(config.data)
  moments = splits.make_splits(store, options)['train']
  made = pipeline.Pipeline(store, moments, 'train', options, config.seed)
  size = config.train.batch_size
  return [
    official.single_rows(made.train_batch(step, size))
    for step in range(_BATCHES)
  ]
