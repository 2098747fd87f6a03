"""The training state and the two jitted steps: train and predict."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dare_jax import layers
from dare_jax import models
from dare_jax import types
from dare_jax.embeddings import set_tables
from dare_jax.evaluation import found as found_lib
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import batch_rows
from dare_jax.training import fresh_state
from dare_jax.training import losses
from dare_jax.training import optimizers
from dare_jax.training import options as train_options
from dare_jax.training import state_parts
from dare_jax.training.roles import role_gradients

TrainState = state_parts.TrainState
Gradients = state_parts.Gradients


class Trainer:
  """The model with its losses and optimizers, as pure jitted steps.

  Attributes:
    model: the ranker that is trained.
    mesh: the mesh of all devices.
    tables: the ranker's tables, and how they are stored.
    trained_tables: the tables that training moves.
    updater: the updater that moves these tables.
    vocab_sizes: field -> table rows, of the fields whose rows a batch finds.
    observes_gradients: whether states are `state_parts.ObservedState`.
    train_step: (state, batch) -> (state, loss), jitted.
    predict_step: (state, batch) -> (logits, what the search found), jitted.
  """

  def __init__(
    self,
    model: models.Ranker,
    options: train_options.Options,
    total_steps: int,
    mesh: jax.sharding.Mesh | None = None,
    observe_gradients: bool = False,
  ) -> None:
    """Makes a trainer.

    Args:
      model: the ranker to train.
      options: how it is trained.
      total_steps: length of the run, for the learning rate's schedule.
      mesh: the mesh of all devices; None makes it by `parallel.mesh.make`.
      observe_gradients: whether states are `state_parts.ObservedState`.

    Raises:
      UsageError: what cannot be trained so.
    """
    self.model = model
    self.mesh = mesh_lib.make() if mesh is None else mesh
    self._options = options
    self.observes_gradients = observe_gradients
    self._dense = optimizers.dense_optimizer(options, total_steps)
    tables = optimizers.tables_of(model.config, options, total_steps, self.mesh)
    self.tables, self.trained_tables, self.updater = tables
    self._fresh = fresh_state.FreshStates(
      model.config, options, tables, self._dense, self.mesh, observe_gradients
    )
    self._sets = set_tables.SetTables(
      model.config.content, model.config.plan, options.row_sparse_from
    )
    self.vocab_sizes = {**self.tables.vocab_sizes, **self._sets.vocab_sizes}
    balance = options.balance_gradients
    self._roles: role_gradients.RoleGradients | None = None
    if balance or observe_gradients:
      self._roles = role_gradients.RoleGradients(
        model, self.trained_tables, self.updater, balance, observe_gradients
      )
    learner = model if not self._roles else self._roles.model
    self._learner = _on_axis(learner, self.mesh)
    self.train_step = jax.jit(self._train_step, donate_argnums=0)
    self.predict_step = jax.jit(self._predict_step, static_argnums=2)
    whole = jax.sharding.NamedSharding(self.mesh, mesh_lib.WHOLE)
    self._empty_sums = jax.jit(self._fresh.zero_sums, out_shardings=whole)

  def init(
    self,
    seed: int,
    batch: types.Batch,
    counts: Mapping[str, np.ndarray] | None = None,
  ) -> TrainState:
    """Returns a fresh state on the mesh.

    Args:
      seed: seed of the initial values.
      batch: gives the shapes only.
      counts: field -> how often each id occurs in the log, int [rows]; needed
        where gradients are observed.
    """
    return self._fresh.make(seed, batch, counts)

  def abstract_state(self, batch: types.Batch) -> TrainState:
    """Returns shapes, dtypes and shardings of a state, which takes no memory.

    Args:
      batch: arrays, or shapes and dtypes.
    """
    return self._fresh.abstract(batch)

  def specs(self, state: TrainState) -> TrainState:
    """Returns how the parts of a state are split over the devices."""
    return self._fresh.specs(state)

  def variables(self, state: TrainState) -> dict[str, Any]:
    """Returns a state as the model has it outside training: row = id.

    The model predicts with them what `predict_step` does.
    """
    stored = self.tables.by_id(state_parts.every_table(state))
    return self._variables(state, self._sets(state.constants, stored, {}))

  def _variables(
    self, state: TrainState, tables: Mapping[str, jax.Array]
  ) -> dict[str, Any]:
    """Returns a state for the model, with whole tables or the rows of a batch.

    The only way from a state to what predicts.
    """
    return {
      'params': layers.narrow(state.params, self.model.config.compute_dtype),
      'tables': {'encoder': tables},
      **state_parts.untrained(state),
    }

  def empty_sums(self) -> dict[str, jax.Array]:
    """Returns the sums of an empty log window, on the mesh."""
    return self._empty_sums()

  def _train_step(
    self, state: TrainState, batch: types.Batch
  ) -> tuple[TrainState, jax.Array]:
    """Returns the next state and the loss; the old state is donated."""
    specs = self.specs(state)
    takes, gives = (specs, mesh_lib.SPLIT), (specs, mesh_lib.WHOLE)
    step = jax.shard_map(
      self._train_part, mesh=self.mesh, in_specs=takes, out_specs=gives
    )
    return step(state, batch)

  def _train_part(
    self, state: TrainState, batch: types.Batch
  ) -> tuple[TrainState, jax.Array]:
    """The step on one device: its blocks of tables, its part of the batch.

    Losses are of the whole batch; so are the gradients of what all devices
    hold, which differentiation sums over them.
    """
    batch, compact = self.gather_part(state, batch)
    found = self.gradient_part(state, batch, compact)
    return self.update_part(state, batch, found), found.loss

  def gather_part(
    self, state: TrainState, batch: types.Batch
  ) -> tuple[types.Batch, dict[str, jax.Array]]:
    """Returns the batch with its rows, and the tables that the model reads.

    The three parts of a step are for use inside `jax.shard_map`.
    """
    batch = batch_rows.find(batch, self.vocab_sizes)
    return batch, self.tables.gather(state_parts.every_table(state), batch.rows)

  def gradient_part(
    self, state: TrainState, batch: types.Batch, compact: Mapping[str, Any]
  ) -> Gradients:
    """Returns the loss of a batch and its gradients.

    Args:
      state: the training state.
      batch: the batch with its rows, from `gather_part`.
      compact: name -> the rows of a table that it reads, from `gather_part`.
    """
    rest = state_parts.untrained(state)
    names = self.trained_tables.specs
    trained = {name: compact[name] for name in compact if name in names}
    given = {name: compact[name] for name in compact if name not in names}
    read = trained if self._roles is None else self._roles.copies(trained)

    def loss_of(params: Any, read: Any) -> tuple[jax.Array, Any]:
      own = self._sets(state.constants, {**read, **given}, batch.rows)
      return self._loss(params, {'encoder': own}, rest, batch)

    grad = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    (loss, (batch_stats, sums)), (params, of_tables) = grad(state.params, read)
    observed = state.seen
    if self._roles is not None:
      of_tables, observed, seen = self._roles.join(
        of_tables, trained, batch.rows, observed
      )
      sums |= seen
    return Gradients(loss, params, of_tables, batch_stats, sums, observed)

  def update_part(
    self, state: TrainState, batch: types.Batch, found: Gradients
  ) -> TrainState:
    """Returns the state after the step.

    Args:
      state: the training state before it.
      batch: the batch with its rows, from `gather_part`.
      found: what `gradient_part` returned for it.
    """
    dense_update, dense_slots = self._dense.update(
      found.params, state.dense_slots, state.params
    )
    tables, table_slots = self.updater.update(
      state.tables['encoder'],
      state.table_slots,
      found.tables,
      batch.rows,
      state.step,
    )
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=optax.apply_updates(state.params, dense_update),
      tables={'encoder': tables},
      batch_stats=found.batch_stats,
      dense_slots=dense_slots,
      table_slots=table_slots,
      sums=jax.tree.map(jnp.add, state.sums, found.sums),
    )
    return state_parts.with_seen(state, found.observed)

  def _loss(
    self, params: Any, tables: Any, rest: Any, batch: types.Batch
  ) -> tuple[jax.Array, Any]:
    """Returns the training loss; new batch statistics and what is logged."""
    narrow = layers.narrow(params, self.model.config.compute_dtype)
    applied: Any = self._learner.apply(
      {'params': narrow, 'tables': tables, **rest},
      batch,
      train=True,
      mutable=['batch_stats'],
    )
    output, updated = applied
    loss, sums = losses.of_batch(
      output, params, batch.targets, self._options, mesh_lib.AXIS
    )
    return loss, (updated['batch_stats'], sums)

  def _predict_step(
    self, state: TrainState, batch: types.Batch, keep: int = 0
  ) -> tuple[jax.Array, Any]:
    """Returns what `_predict_part` does, of the whole batch."""
    step = jax.shard_map(
      lambda state, batch: self._predict_part(state, batch, keep),
      mesh=self.mesh,
      in_specs=(self.specs(state), mesh_lib.SPLIT),
      out_specs=mesh_lib.SPLIT,
    )
    return step(state, batch)

  def _predict_part(
    self, state: TrainState, batch: types.Batch, keep: int
  ) -> tuple[jax.Array, Any]:
    """Returns logits and, where `keep` is above 0, `evaluation.found.best`."""
    batch, tables = self.gather_part(state, batch)
    tables = self._sets(state.constants, tables, batch.rows)
    variables = self._variables(state, tables)
    output: Any = _on_axis(self.model, self.mesh).apply(variables, batch)
    found = None
    if keep:
      ranked = dataclasses.replace(output.search, scores=output.weights)
      found = found_lib.best(ranked, keep)
    return output.logits, found


def _on_axis(model: models.Ranker, mesh: jax.sharding.Mesh) -> models.Ranker:
  """Returns the same model for one of the devices that share a batch."""
  in_place = mesh.devices.flat[0].platform == 'tpu'
  own: Any = {'axis_name': mesh_lib.AXIS, 'kept_in_place': in_place}
  return models.Ranker(dataclasses.replace(model.config, **own))
