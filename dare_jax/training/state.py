"""The training state and the two jitted steps: train and predict."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dare_jax import embeddings
from dare_jax import errors
from dare_jax import models
from dare_jax import types
from dare_jax.models import published
from dare_jax.models import ranker
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import losses
from dare_jax.training import optimizers
from dare_jax.training import retrieval
from dare_jax.training import table_updates

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
  """All that changes in training; saved and restored as a whole.

  `constants` are the model's fixed random directions. `clusters` is entry by
  entry of `History.row`: entry 0 is padding, entry r + 1 row r of the store;
  None where the search does not group behaviors.
  """

  step: jax.Array
  params: Mapping[str, Any]
  tables: Mapping[str, Any]
  batch_stats: Mapping[str, Any]
  dense_slots: Any
  table_slots: Any
  sums: Mapping[str, jax.Array]
  constants: Mapping[str, Any] = struct.field(default_factory=dict)
  clusters: types.Clusters | None = None


class Trainer:
  """The model with its losses and optimizers, as pure jitted steps."""

  def __init__(
    self,
    model: models.Ranker,
    optim: Any,
    total_steps: int,
    mesh: jax.sharding.Mesh | None = None,
  ) -> None:
    """Makes a trainer.

    Args:
      model: the ranker.
      optim: the config's optim section.
      total_steps: length of the run, for the learning rate's schedule.
      mesh: as `parallel.mesh.make` makes by default.

    Raises:
      UsageError: what cannot be trained so.
    """
    self.model = model
    self.mesh = mesh_lib.make() if mesh is None else mesh
    self._optim = optim
    if optim.balance_gradients and self.mesh.size > 1:
      raise errors.UsageError(
        'optim.balance_gradients=True is for one device: each has but a part'
        f' of the gradients that are compared. There are {self.mesh.size}.'
      )
    learner = _by_role(model) if optim.balance_gradients else model
    self._learner = _on_axis(learner)
    self._dense = optimizers.dense_optimizer(optim, total_steps)
    self.tables = table_updates.TableUpdater(model.config, optim, total_steps)
    self.train_step = jax.jit(self._train_step, donate_argnums=0)
    self.predict_step = jax.jit(self._predict_step, static_argnums=2)

  def init(self, seed: int, batch: types.Batch) -> TrainState:
    """Returns a fresh state on the mesh; `batch` gives the shapes only."""
    make = self._maker(batch)
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state(batch))
    return jax.jit(make, out_shardings=shardings)(jax.random.key(seed))

  def abstract_state(self, batch: types.Batch) -> TrainState:
    """Returns shapes, dtypes and shardings of a state, which takes no memory.

    Args:
      batch: arrays, or shapes and dtypes.
    """
    shapes = jax.eval_shape(self._maker(batch), jax.random.key(0))
    shardings = mesh_lib.shardings(self.mesh, self.specs(shapes))
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      shapes,
      shardings,
    )

  def _maker(self, batch: types.Batch) -> Callable[[jax.Array], TrainState]:
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch
    )
    return lambda rng: self._init(rng, shapes)

  def specs(self, state: TrainState) -> TrainState:
    """Returns how the parts of a state are split over the devices."""
    whole = jax.tree.map(lambda _: mesh_lib.WHOLE, state)
    tables, slots = self.tables.specs(state.tables['encoder'])
    return dataclasses.replace(
      whole, tables={'encoder': tables}, table_slots=slots
    )

  def empty_sums(self) -> dict[str, jax.Array]:
    """Returns the sums of an empty log window, on the mesh."""
    sharding = jax.sharding.NamedSharding(self.mesh, mesh_lib.WHOLE)
    return jax.jit(zero_sums, out_shardings=sharding)()

  def _init(self, rng: jax.Array, shapes: types.Batch) -> TrainState:
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    variables = self._stored_model().init(rng, batch)
    if self._optim.published_init:
      variables = published.redraw(jax.random.fold_in(rng, 1), variables)
    params = variables['params']
    tables, table_slots = self.tables.init(variables['tables']['encoder'])
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      tables={'encoder': tables},
      batch_stats=variables['batch_stats'],
      dense_slots=self._dense.init(params),
      table_slots=table_slots,
      sums=zero_sums(),
      constants=variables.get('constants', {}),
      clusters=None,
    )

  def _stored_model(self) -> models.Ranker:
    """Returns the model with as many rows as its tables have in storage."""
    config = self.model.config
    content = tuple(
      dataclasses.replace(
        feature,
        vocab_size=self.tables.stored_rows(feature.name, feature.vocab_size),
      )
      for feature in config.content
    )
    return models.Ranker(dataclasses.replace(config, content=content))

  def _train_step(
    self, state: TrainState, batch: types.Batch
  ) -> tuple[TrainState, jax.Array]:
    """Returns the next state and the loss; the old state is donated."""
    specs = self.specs(state)
    step = jax.shard_map(
      self._train_part,
      mesh=self.mesh,
      in_specs=(specs, mesh_lib.SPLIT),
      out_specs=(specs, mesh_lib.WHOLE),
    )
    return step(state, batch)

  def _train_part(
    self, state: TrainState, batch: types.Batch
  ) -> tuple[TrainState, jax.Array]:
    """The step on one device: its blocks of tables, its part of the batch.

    Losses are of the whole batch; so are the gradients of what all devices
    hold, which differentiation sums over them.
    """
    batch = self.tables.find_rows(_with_clusters(batch, state.clusters))
    whole = state.tables['encoder']
    compact = self.tables.gather(whole, batch.rows)
    rest = {'batch_stats': state.batch_stats, 'constants': state.constants}
    grad = jax.value_and_grad(self._loss, argnums=(0, 1), has_aux=True)
    (loss, (batch_stats, sums)), (dense_grad, table_grad) = grad(
      state.params, {'encoder': self._by_role(compact)}, rest, batch
    )
    dense_update, dense_slots = self._dense.update(
      dense_grad, state.dense_slots, state.params
    )
    tables, table_slots = self.tables.update(
      whole,
      state.table_slots,
      self._merge_roles(table_grad['encoder'], compact),
      batch.rows,
      state.step,
    )
    new_state = TrainState(
      step=state.step + 1,
      params=optax.apply_updates(state.params, dense_update),
      tables={'encoder': tables},
      batch_stats=batch_stats,
      dense_slots=dense_slots,
      table_slots=table_slots,
      sums=jax.tree.map(jnp.add, state.sums, sums),
      constants=state.constants,
      clusters=state.clusters,
    )
    return new_state, loss

  def _loss(
    self, params: Any, tables: Any, rest: Any, batch: types.Batch
  ) -> tuple[jax.Array, Any]:
    """The training loss: main + aux_weight * auxiliary + extra + l2."""
    applied: Any = self._learner.apply(
      {'params': params, 'tables': tables, **rest},
      batch,
      train=True,
      mutable=['batch_stats'],
    )
    output, updated = applied
    label, weight = batch.targets.label, batch.targets.weight
    epsilon = self._optim.loss_epsilon
    entropy = losses.binary_cross_entropy(output.logits, label, epsilon)
    main = losses.weighted_mean(entropy, weight, mesh_lib.AXIS)
    aux = jnp.zeros(())
    if output.aux_logits is not None:
      aux_entropy = losses.binary_cross_entropy(
        output.aux_logits, label, epsilon
      )
      aux = losses.weighted_mean(aux_entropy, weight, mesh_lib.AXIS)
    loss = main + self._optim.aux_weight * aux
    loss += sum(output.extra_losses.values())
    norms = self._optim.l2_on_norms
    loss += self._optim.l2 * losses.l2_penalty(params, norms)
    sums = {
      'right': jnp.sum(weight * ((output.logits > 0) == (label > 0.5))),
      'prob': jnp.sum(weight * jax.nn.sigmoid(output.logits)),
      'label': jnp.sum(weight * label),
      'weight': jnp.sum(weight),
    }
    sums = jax.lax.psum(sums, mesh_lib.AXIS)
    sums |= {
      'steps': jnp.ones(()),
      'loss': loss,
      'logloss': main * sums['weight'],
      'aux_logloss': aux * sums['weight'],
    }
    return loss, (updated['batch_stats'], sums)

  def _predict_step(
    self, state: TrainState, batch: types.Batch, keep: int = 0
  ) -> tuple[jax.Array, dict[str, jax.Array], Any]:
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
  ) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    """Returns logits, whether each target is in the visible history, and,
    where `keep` is above 0, `retrieval.best_found` of the search.
    """
    batch = self.tables.find_rows(_with_clusters(batch, state.clusters))
    tables = self.tables.gather(state.tables['encoder'], batch.rows)
    variables = {
      'params': state.params,
      'tables': {'encoder': tables},
      'batch_stats': state.batch_stats,
      'constants': state.constants,
    }
    # Mutable: with batch_statistics a head writes them in evaluation, too.
    applied: Any = _on_axis(self.model).apply(
      variables,
      batch,
      train=False,
      mutable=['batch_stats'],
    )
    output, _ = applied
    history = batch.history
    visible = ranker.visible_behaviors(history, batch.end, batch.start)
    visible = visible[:, :, None, :]
    seen = {
      field: jnp.any(
        (history.ids[field][:, None, None, :] == ids[..., None]) & visible,
        axis=-1,
      )
      for field, ids in batch.targets.ids.items()
      if field in ('item', 'category')
    }
    found = None
    if keep:
      ranked = dataclasses.replace(output.search, scores=output.weights)
      found = retrieval.best_found(ranked, keep)
    return output.logits, seen, found

  def _by_role(self, tables: Any) -> Any:
    """Copies each shared table for each role, where gradients are balanced."""
    if not self._optim.balance_gradients:
      return tables
    plan = embeddings.PLANS[self._learner.config.plan]
    return {
      f'{name.removesuffix("_shared")}_{suffix}': table
      for name, table in tables.items()
      for suffix in plan.suffixes
    }

  def _merge_roles(self, grads: Any, tables: Any) -> Any:
    """Sums the roles' gradients of each table at equal length.

    The attention gradient is rescaled to the norm of the representation one
    (a remedy that arXiv 2410.02604, section 3, tries before decoupling).
    """
    if not self._optim.balance_gradients:
      return grads
    merged = {}
    for name in tables:
      field = name.removesuffix('_shared')
      attention = grads[f'{field}_attention']
      representation = grads[f'{field}_representation']
      norm = jnp.linalg.norm(attention)
      scale = jnp.linalg.norm(representation) / jnp.where(norm > 0, norm, 1.0)
      merged[name] = representation + scale * attention
    return merged


def _on_axis(model: models.Ranker) -> models.Ranker:
  """Returns the same model for one of the devices that share a batch."""
  config = dataclasses.replace(model.config, axis_name=mesh_lib.AXIS)
  return models.Ranker(config)


def _by_role(model: models.Ranker) -> models.Ranker:
  """Returns the same model with a table for each role.

  Raises:
    UsageError: no table of its plan serves both roles.
  """
  plan = embeddings.PLANS[model.config.plan].by_role
  if plan is None:
    raise errors.UsageError(
      'optim.balance_gradients=True is for plans with a table that serves both'
      f' roles; model.plan={model.config.plan!r} has none.'
    )
  return models.Ranker(dataclasses.replace(model.config, plan=plan))


def _with_clusters(
  batch: types.Batch, clusters: types.Clusters | None
) -> types.Batch:
  """Looks up the clusters of a batch's behaviors."""
  if clusters is None:
    return batch
  found = jax.tree.map(lambda x: x[batch.history.row], clusters)
  history = dataclasses.replace(batch.history, clusters=found, row=None)
  return dataclasses.replace(batch, history=history)


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


def count_parameters(
  state: TrainState, updater: table_updates.TableUpdater
) -> dict[str, int]:
  """Returns parameters by role; a table of both counts as representation."""
  counts = {'attention_tables': 0, 'representation_tables': 0, 'other': 0}
  for name, table in state.tables['encoder'].items():
    is_attention = '_attention' in name
    role = 'attention_tables' if is_attention else 'representation_tables'
    counts[role] += updater.num_rows(name, table) * table.shape[1]
  counts['other'] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  return counts
