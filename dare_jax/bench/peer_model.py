"""The official PyTorch code's training step, out of a user's checkout."""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import statistics
import sys
import time
import types as python_types
from typing import Any

import ml_collections
import numpy as np

from dare_jax import errors
from dare_jax import types
from dare_jax.bench import process
from dare_jax.data import options as data_options
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.store import history_store

_MODEL_FILE = 'model/din_pytorch.py'
_BATCHES = 4
_WARM_UP = 2
_AT_LEAST = 5
_WEIGHT_DECAY = 1e-6


def check(checkout: str | None) -> pathlib.Path:
  """Returns the folder of the official code.

  Raises:
    UsageError: not given, not there, or torch is not installed.
  """
  if checkout is None:
    raise errors.UsageError(
      '--checkout is missing: the folder of a clone of'
      ' https://github.com/thuml/DARE.'
    )
  folder = pathlib.Path(checkout).expanduser()
  if not (folder / _MODEL_FILE).is_file():
    raise errors.UsageError(
      f'--checkout={checkout}: no {_MODEL_FILE} there; give the folder of a'
      ' clone of https://github.com/thuml/DARE.'
    )
  if importlib.util.find_spec('torch') is None:
    raise errors.UsageError(
      'the official code needs torch, which is not installed: pip install'
      ' torch.'
    )
  return folder.resolve()


def single_rows(batch: types.Batch) -> dict[str, np.ndarray]:
  """Returns a batch in the official code's form: each target with its history.

  Args:
    batch: of one moment a window, histories right-aligned.
  """
  shape = batch.targets.label.shape
  length = batch.history.mask.shape[1]
  mask = np.repeat(batch.history.mask, shape[2], axis=0)
  label = batch.targets.label.reshape(-1)
  back = np.arange(length, 0, -1)
  return {
    'iid': batch.targets.ids['item'].reshape(-1),
    'cid': batch.targets.ids['category'].reshape(-1),
    'tid': np.zeros(label.shape, np.int32),
    'hist_iid': np.repeat(batch.history.ids['item'], shape[2], axis=0),
    'hist_cid': np.repeat(batch.history.ids['category'], shape[2], axis=0),
    'hist_tid': np.broadcast_to(back, mask.shape).astype(np.int32),
    'mask': mask.astype(np.float32),
    'target': np.stack([label, 1 - label], axis=1),
  }


class Side:
  """The official training on a store."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    checkout: pathlib.Path,
    store: pathlib.Path,
  ) -> None:
    """Builds the model of its published command line for DARE.

    Args:
      config: of our side, for the sizes.
      checkout: as `check` returns.
      store: the log's.

    Raises:
      UsageError: its model does not take these arguments.
    """
    import torch

    opened = history_store.open_store(store)
    self._batches = _batches(config, opened)
    sizes = opened.vocab_sizes
    dim, rows = config.model.attention_dim, len(self._batches[0]['iid'])
    length = config.data.history_length
    try:
      self._model = _import(checkout).DIN(
        item_n=sizes['item'],
        cate_n=sizes['category'],
        item_embedding_dim=dim,
        category_embedding_dim=dim,
        time_embedding_dim=dim,
        batch_size=rows,
        max_length=length,
        use_cross_feature=True,
        attn_func='scaled_dot_product',
        use_aux_loss=True,
        use_time=True,
        use_time_mode='concat',
        long_seq_split=f'0:{length}',
        use_long_seq_average=False,
        soft_search=True,
        top_k=config.model.top_k,
        model_name='DARE',
      )
    except (ImportError, AttributeError, TypeError) as error:
      raise errors.UsageError(
        f'--checkout={checkout}: not the code that was expected, commit'
        f' c72e087 of https://github.com/thuml/DARE ({error}).'
      ) from None
    self._adam = torch.optim.Adam(self._model.parameters(), lr=0.01)
    self._decayed = [
      value
      for name, value in self._model.named_parameters()
      if 'bias' not in name and 'embedding' not in name
    ]
    self._number = 0

  def steps(self, seconds: float) -> dict[str, float]:
    """Trains for some seconds."""
    times: list[float] = []
    left = seconds
    while left > 0 or len(times) < _WARM_UP + _AT_LEAST:
      start = time.perf_counter()
      self._step()
      times.append(time.perf_counter() - start)
      if len(times) > _WARM_UP:
        left -= times[-1]
    times = times[_WARM_UP:]
    targets = len(self._batches[0]['iid'])
    return {
      'targets_per_step': targets,
      'step_ms': 1e3 * statistics.median(times),
      'examples_per_s': targets * len(times) / sum(times),
    }

  def _step(self) -> None:
    batch = self._batches[self._number % _BATCHES]
    self._number += 1
    _, loss, _ = self._model(batch)
    squares = sum(value.square().sum() for value in self._decayed)
    loss = loss + _WEIGHT_DECAY * squares
    self._adam.zero_grad()
    loss.backward()
    self._adam.step()

  def peak_mb(self) -> float:
    return process.peak_mb()


def _import(checkout: pathlib.Path) -> Any:
  """Returns the module of the model, under a name of our own."""
  package = python_types.ModuleType('official_dare')
  package.__path__ = [str(checkout / 'model')]
  sys.modules[package.__name__] = package
  return importlib.import_module('official_dare.din_pytorch')


def _batches(
  config: ml_collections.ConfigDict, store: history_store.HistoryStore
) -> list[dict[str, np.ndarray]]:
  options = data_options.of_section(config.data)
  moments = splits.make_splits(store, options)['train']
  made = pipeline.Pipeline(store, moments, 'train', options, config.seed)
  size = config.train.batch_size
  return [single_rows(made.train_batch(step, size)) for step in range(_BATCHES)]
