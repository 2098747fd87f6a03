"""Random batches, and trainers as the base config makes them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from dare_jax import models
from dare_jax import types
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import batch_rows
from dare_jax.training import options as train_options
from dare_jax.training import state as train_state

CATEGORIES = 10_000
CANDIDATES = 3
# Spreads neighbours in popularity over a table.
_PRIME = 2_654_435_761
# Of the learning rate's schedule: no training here ends.
_STEPS = 1_000_000
# As `configs/base.py` has them, which needs a library that may be missing.
OPTIM: dict[str, Any] = {
  'learning_rate': 0.01,
  'schedule': 'constant',
  'tables': 'lazy_adam',
  'table_learning_rate': None,
  'table_weight_decay': 0.0,
  'by_table': (),
  'row_sparse_from': 4096,
  'unique_rows': 'host',
  'table_dtype': 'float32',
  'table_layout': None,
  'aux_weight': 1.0,
  'pointwise_weight': 1.0,
  'softmax_weight': 0.0,
  'l2': 1e-6,
  'balance_gradients': False,
  'l2_on_norms': False,
  'loss_epsilon': 0.0,
  'published_init': False,
}


def batch(seed: int, rows: int, moments: int, length: int) -> types.Batch:
  """Returns a batch of full histories on the host.

  The n-th item occurs in proportion to 1 / n; a category is that of its item.
  What is clicked is in the history, so that there is something to learn.

  Args:
    seed: seed of the batch.
    rows: number of rows of the item tables.
    moments: windows, each with one moment.
    length: number of behaviors in a history.
  """
  rng = np.random.default_rng(seed)

  def draw(*shape: int) -> np.ndarray:
    rank = np.exp(rng.random(shape) * np.log(rows - 2)).astype(np.int64)
    return ((rank * _PRIME) % (rows - 2) + 2).astype(np.int32)

  history, target = draw(moments, length), draw(moments, 1, CANDIDATES)
  category = lambda item: (item % (CATEGORIES - 2) + 2).astype(np.int32)
  target[:, 0, 0] = history[:, rng.integers(length)]
  label = np.zeros(target.shape, np.float32)
  label[..., 0] = 1
  return types.Batch(
    history=types.History(
      ids={'item': history, 'category': category(history)},
      mask=np.ones(history.shape, bool),
    ),
    end=np.full((moments, 1), length, np.int32),
    targets=types.Targets(
      ids={'item': target, 'category': category(target)},
      label=label,
      weight=np.ones(target.shape, np.float32),
    ),
  )


def ranker(name: str, rows: int) -> models.Ranker:
  """Returns a preset with the sizes of the base config."""
  return models.build(name, vocab_sizes={'item': rows, 'category': CATEGORIES})


def trainer(name: str, rows: int, devices: Any = None) -> train_state.Trainer:
  """Returns what trains a preset.

  Args:
    name: the name of a preset.
    rows: number of rows of the item tables.
    devices: the devices to train on; None: all.
  """
  options = train_options.Options(**OPTIM)
  mesh = mesh_lib.make(devices)
  return train_state.Trainer(ranker(name, rows), options, _STEPS, mesh)


def rows_finder(made: train_state.Trainer) -> batch_rows.BatchRows:
  """Returns what finds the table rows of batches on the host."""
  return batch_rows.BatchRows(made.vocab_sizes, len(made.mesh.local_devices))


def train(
  made: train_state.Trainer, steps: int, make: Callable[[int], types.Batch]
) -> Iterator[tuple[train_state.TrainState, jax.Array]]:
  """Yields the state and the loss of each step from a fresh state.

  All batches get the row capacity of the widest, so that one step is compiled.

  Args:
    made: the trainer, as `trainer` returns it.
    steps: number of steps to train.
    make: returns a batch on the host, by its number.
  """
  find = rows_finder(made)
  batches = [find(make(number)) for number in range(steps)]
  widest = np.max(list(map(find.capacities, batches)), 0)
  state = made.init(0, make(0))
  for one in batches:
    placed = mesh_lib.place(made.mesh, find.widen(one, widest))
    state, loss = made.train_step(state, placed)
    yield state, loss
