"""The training state and the two jitted steps: train and predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dare_jax import models
from dare_jax import types
from dare_jax.models import ranker
from dare_jax.training import losses
from dare_jax.training import optimizers

# Sums over the targets since the last log line; all that a log line needs.
SUM_NAMES = (
  'steps',
  'loss',
  'logloss',
  'aux_logloss',
  'right',
  'prob',
  'label',
  'weight',
)


@struct.dataclass
class TrainState:
  """All that changes in training; saved and restored as a whole."""

  step: jax.Array
  params: Mapping[str, Any]
  tables: Mapping[str, Any]
  batch_stats: Mapping[str, Any]
  dense_slots: Any
  table_slots: Any
  sums: Mapping[str, jax.Array]


class Trainer:
  """The model with its losses and optimizers, as pure jitted steps."""

  def __init__(
    self, model: models.Ranker, optim: Any, total_steps: int
  ) -> None:
    """Makes a trainer.

    Args:
      model: the ranker.
      optim: the config's optim section.
      total_steps: length of the run, for the learning rate's schedule.
    """
    self.model = model
    self._optim = optim
    self._dense = optimizers.dense_optimizer(optim, total_steps)
    self._table = optimizers.table_optimizer(optim, total_steps)
    self.train_step = jax.jit(self._train_step, donate_argnums=0)
    self.predict_step = jax.jit(self._predict_step)

  def init(self, seed: int, batch: types.Batch) -> TrainState:
    """Returns a fresh state; `batch` gives the shapes only."""
    return jax.jit(self._init)(jax.random.key(seed), batch)

  def _init(self, rng: jax.Array, batch: types.Batch) -> TrainState:
    variables = self.model.init(rng, batch)
    params = variables['params']
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      tables=variables['tables'],
      batch_stats=variables['batch_stats'],
      dense_slots=self._dense.init(params),
      table_slots=self._table.init(variables['tables']),
      sums=zero_sums(),
    )

  def _train_step(
    self, state: TrainState, batch: types.Batch
  ) -> tuple[TrainState, jax.Array]:
    """Returns the next state and the loss; the old state is donated."""
    grad = jax.value_and_grad(self._loss, argnums=(0, 1), has_aux=True)
    (loss, (batch_stats, sums)), (dense_grad, table_grad) = grad(
      state.params, state.tables, state.batch_stats, batch
    )
    dense_update, dense_slots = self._dense.update(
      dense_grad, state.dense_slots, state.params
    )
    table_update, table_slots = self._table.update(
      table_grad, state.table_slots, state.tables
    )
    new_state = TrainState(
      step=state.step + 1,
      params=optax.apply_updates(state.params, dense_update),
      tables=optax.apply_updates(state.tables, table_update),
      batch_stats=batch_stats,
      dense_slots=dense_slots,
      table_slots=table_slots,
      sums=jax.tree.map(jnp.add, state.sums, sums),
    )
    return new_state, loss

  def _loss(
    self, params: Any, tables: Any, batch_stats: Any, batch: types.Batch
  ) -> tuple[jax.Array, Any]:
    """The training loss: main + aux_weight * auxiliary + extra + l2."""
    applied: Any = self.model.apply(
      {'params': params, 'tables': tables, 'batch_stats': batch_stats},
      batch,
      train=True,
      mutable=['batch_stats'],
    )
    output, updated = applied
    label, weight = batch.targets.label, batch.targets.weight
    entropy = losses.binary_cross_entropy(output.logits, label)
    main = losses.weighted_mean(entropy, weight)
    aux = jnp.zeros(())
    if output.aux_logits is not None:
      aux_entropy = losses.binary_cross_entropy(output.aux_logits, label)
      aux = losses.weighted_mean(aux_entropy, weight)
    loss = main + self._optim.aux_weight * aux
    loss += sum(output.extra_losses.values())
    loss += self._optim.l2 * losses.l2_penalty(params)
    total = jnp.sum(weight)
    sums = {
      'steps': jnp.ones(()),
      'loss': loss,
      'logloss': main * total,
      'aux_logloss': aux * total,
      'right': jnp.sum(weight * ((output.logits > 0) == (label > 0.5))),
      'prob': jnp.sum(weight * jax.nn.sigmoid(output.logits)),
      'label': jnp.sum(weight * label),
      'weight': total,
    }
    return loss, (updated['batch_stats'], sums)

  def _predict_step(
    self, state: TrainState, batch: types.Batch
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns logits, and whether each target is in the visible history."""
    variables = {
      'params': state.params,
      'tables': state.tables,
      'batch_stats': state.batch_stats,
    }
    output: Any = self.model.apply(variables, batch, train=False)
    history = batch.history
    visible = ranker.visible_behaviors(history, batch.end)[:, :, None, :]
    seen = {
      field: jnp.any(
        (history.ids[field][:, None, None, :] == ids[..., None]) & visible,
        axis=-1,
      )
      for field, ids in batch.targets.ids.items()
      if field in ('item', 'category')
    }
    return output.logits, seen


@jax.jit
def is_finite(state: TrainState) -> jax.Array:
  """Returns whether all parameters and sums are finite: worth saving."""
  leaves = jax.tree.leaves((state.params, state.tables, state.sums))
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))


def zero_sums() -> dict[str, jax.Array]:
  """Returns the sums of an empty log window."""
  return {name: jnp.zeros(()) for name in SUM_NAMES}


def summarize(sums: Mapping[str, Any]) -> dict[str, float]:
  """Returns the means of a log window from its sums."""
  host = {name: float(np.asarray(value)) for name, value in sums.items()}
  weight = max(host['weight'], 1.0)
  return {
    'loss': host['loss'] / max(host['steps'], 1.0),
    'logloss': host['logloss'] / weight,
    'aux_logloss': host['aux_logloss'] / weight,
    'accuracy': host['right'] / weight,
    'calibration': host['prob'] / max(host['label'], 1e-9),
  }


def count_parameters(state: TrainState) -> dict[str, int]:
  """Returns parameters by role; a table of both counts as representation."""
  counts = {'attention_tables': 0, 'representation_tables': 0, 'other': 0}
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.tables):
    is_attention = '_attention' in path[-1].key
    role = 'attention_tables' if is_attention else 'representation_tables'
    counts[role] += leaf.size
  counts['other'] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  return counts
