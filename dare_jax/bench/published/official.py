"""The official PyTorch code's training step, out of a user's checkout.

On a GPU where torch has one. Needs nothing of a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import importlib
import importlib.util
import pathlib
import statistics
import sys
import time
import types as python_types
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax import types
from dare_jax.bench import process

_MODEL_FILE = 'model/din_pytorch.py'
_WARM_UP = 2
_AT_LEAST = 5
_WEIGHT_DECAY = 1e-6


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of the model: rows of tables, and the rest as in its flags."""

  items: int
  categories: int
  dim: int
  length: int
  top_k: int


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
    batch: windows of one moment each, with right-aligned histories.
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


class Training:
  """The official training on some batches, in turn."""

  def __init__(
    self,
    checkout: pathlib.Path,
    batches: Sequence[Mapping[str, np.ndarray]],
    sizes: Sizes,
  ) -> None:
    """Builds the model of its published command line for DARE.

    Args:
      checkout: folder of the official code, from `check`.
      batches: name -> array [rows, ...], as `single_rows` returns them; all
        have equally many rows.
      sizes: the widths of the model.

    Raises:
      UsageError: its model does not take these arguments.
    """
    import torch

    self._torch = torch
    self._batches = batches
    try:
      made = _import(checkout).DIN(
        item_n=sizes.items,
        cate_n=sizes.categories,
        item_embedding_dim=sizes.dim,
        category_embedding_dim=sizes.dim,
        time_embedding_dim=sizes.dim,
        batch_size=len(batches[0]['iid']),
        max_length=sizes.length,
        use_cross_feature=True,
        attn_func='scaled_dot_product',
        use_aux_loss=True,
        use_time=True,
        use_time_mode='concat',
        long_seq_split=f'0:{sizes.length}',
        use_long_seq_average=False,
        soft_search=True,
        top_k=sizes.top_k,
        model_name='DARE',
      )
    except (ImportError, AttributeError, TypeError) as error:
      raise errors.UsageError(
        f'--checkout={checkout}: not the code that was expected, commit'
        f' c72e087 of https://github.com/thuml/DARE ({error}).'
      ) from None
    self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    # It puts its batches there itself.
    self._model = made.to(self.device)
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
    batch = self._batches[self._number % len(self._batches)]
    self._number += 1
    _, loss, _ = self._model(batch)
    squares = sum(value.square().sum() for value in self._decayed)
    loss = loss + _WEIGHT_DECAY * squares
    self._adam.zero_grad()
    loss.backward()
    self._adam.step()
    if self.device == 'cuda':
      self._torch.cuda.synchronize()

  def peak_mb(self) -> float:
    return process.peak_mb()


def _import(checkout: pathlib.Path) -> Any:
  """Returns the module of the model, under a name of our own."""
  package = python_types.ModuleType('official_dare')
  package.__path__ = [str(checkout / 'model')]
  sys.modules[package.__name__] = package
  return importlib.import_module('official_dare.din_pytorch')
