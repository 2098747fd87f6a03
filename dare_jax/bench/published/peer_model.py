"""The side of `bench peer` that trains the official PyTorch code on a store."""

from __future__ import annotations

import pathlib

import numpy as np

from dare_jax.bench.published import official
from dare_jax.bench.training import train
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.store import history_store

_BATCHES = 4


class Side(official.Training):
  """The official training on a store."""

  def __init__(
    self,
    training: train.Training,
    checkout: pathlib.Path,
    store: pathlib.Path,
  ) -> None:
    """Reads some batches and builds the model.

    Args:
      training: the training of our side that has the same sizes.
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
      dim=training.point.dim,
      length=training.point.length,
      top_k=training.model.top_k,
    )
    super().__init__(checkout, _batches(training, opened), sizes)


def _batches(
  training: train.Training, store: history_store.HistoryStore
) -> list[dict[str, np.ndarray]]:
  options = training.options
  moments = splits.make_splits(store, options.data)['train']
  made = pipeline.Pipeline(store, moments, 'train', options.data, options.seed)
  size = options.train.batch_size
  return [
    official.single_rows(made.train_batch(step, size))
    for step in range(_BATCHES)
  ]
