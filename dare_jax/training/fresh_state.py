"""Fresh training states: initial values, then slots, where they belong."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dare_jax import models
from dare_jax import types
from dare_jax.models.official import recipe
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import log_window
from dare_jax.training import optimizers
from dare_jax.training import options as train_options
from dare_jax.training import state_parts
from dare_jax.training.roles import gradient_statistics

TrainState = state_parts.TrainState


class FreshStates:
  """Makes the states that trainings of one model begin with."""

  def __init__(
    self,
    config: models.RankerConfig,
    options: train_options.Options,
    tables: optimizers.RankerTables,
    dense: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    observes: bool,
  ) -> None:
    """Makes nothing yet.

    Args:
      config: what shapes the ranker.
      options: how it is trained.
      tables: its tables.
      dense: the optimizer of all else.
      mesh: the mesh of all devices.
      observes: whether states are `state_parts.ObservedState`.
    """
    self._config = config
    self._options = options
    self._tables = tables
    self._dense = dense
    self._mesh = mesh
    self._observes = observes
    self._draw = jax.jit(self._init_model)  # Traced once, for shapes, too.
    self._fill = jax.jit(self._init_slots)

  def make(
    self,
    seed: int,
    batch: types.Batch,
    counts: Mapping[str, np.ndarray] | None = None,
  ) -> TrainState:
    """Returns a fresh state on the mesh, see `Trainer.init`."""
    zeros = lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
    shardings = jax.tree.map(lambda x: x.sharding, self._abstract(batch))
    # Slots come second: they fill the memory that random numbers took, which
    # is several times that of a table.
    split = mesh_lib.shardings(
      self._mesh, self._tables.trained.gathered_specs()
    )
    draw = jax.jit(
      lambda rng: self._draw(rng, zeros()),
      out_shardings=dataclasses.replace(
        shardings,
        tables={'encoder': split},
        dense_slots=None,
        table_slots=None,
      ),
    )
    joined = self._tables.trained.only_joined(shardings.tables['encoder'])
    fill = jax.jit(
      lambda state: self._fill(state),
      out_shardings=(shardings.dense_slots, shardings.table_slots, joined),
    )
    state = draw(jax.random.key(seed))
    state = self._with_slots(state, *fill(state))
    if not self._observes:
      return state
    trained = self._tables.trained
    seen = gradient_statistics.fresh(trained, counts or {}, self._mesh)
    return state_parts.with_seen(state, seen)

  def abstract(self, batch: types.Batch) -> TrainState:
    """Returns shapes, dtypes and shardings, see `Trainer.abstract_state`."""
    found = self._abstract(batch)
    if not self._observes:
      return found
    seen = gradient_statistics.abstract(self._tables.trained, self._mesh)
    return state_parts.with_seen(found, seen)

  def _abstract(self, batch: types.Batch) -> TrainState:
    """Returns what `abstract` does, without what is seen of gradients."""
    shapes = jax.eval_shape(self._draw, jax.random.key(0), batch)
    slots = jax.eval_shape(self._fill, shapes)
    shapes = self._with_slots(shapes, *slots)
    shardings = mesh_lib.shardings(self._mesh, self.specs(shapes))
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      shapes,
      shardings,
    )

  def specs(self, state: TrainState) -> TrainState:
    """Returns how the parts of a state are split over the devices."""
    whole = jax.tree.map(lambda _: mesh_lib.WHOLE, state)
    found = dataclasses.replace(
      whole,
      tables={'encoder': self._tables.trained.partition_specs()},
      table_slots=self._tables.updater.partition_specs(),
    )
    every = self._tables.every.partition_specs()
    given = {name: every[name] for name in state_parts.given_tables(state)}
    found = state_parts.with_given(found, given, state_parts.members(whole))
    if state.seen is None:
      return found
    seen = gradient_statistics.specs(self._tables.trained)
    return state_parts.with_seen(found, seen)

  def zero_sums(self) -> dict[str, jax.Array]:
    """Returns the sums of an empty log window."""
    observed = self._tables.trained.specs if self._observes else ()
    return log_window.zero_sums() | gradient_statistics.zero_sums(observed)

  def _init_model(self, rng: jax.Array, batch: types.Batch) -> TrainState:
    """Returns a fresh state without slots; of `batch` only shapes matter."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
    stored = optimizers.stored_model(self._config, self._tables.every)
    variables = stored.init(rng, zeros)
    if self._options.published_init:
      variables = recipe.redraw(jax.random.fold_in(rng, 1), variables)
    made = variables['tables']['encoder']
    trained = {name: made[name] for name in self._tables.trained.specs}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      tables={'encoder': self._tables.trained.as_stored(trained)},
      batch_stats=variables['batch_stats'],
      dense_slots=None,
      table_slots=None,
      sums=self.zero_sums(),
      constants=variables.get('constants', {}),
      clusters=None,
    )

  def _init_slots(self, state: TrainState) -> tuple[Any, Any, Any]:
    """Returns fresh slots, of all, and what is joined of tables still apart."""
    tables = state.tables['encoder']
    joined = self._tables.trained.only_joined(self._tables.trained.join(tables))
    slots = self._tables.updater.init_slots(tables)
    return self._dense.init(state.params), slots, joined

  def _with_slots(
    self, state: TrainState, dense: Any, of_tables: Any, joined: Any
  ) -> TrainState:
    """Returns the state of `_init_model` with what `_init_slots` made."""
    tables = self._tables.trained.with_joined(state.tables['encoder'], joined)
    return dataclasses.replace(
      state,
      tables={'encoder': tables},
      dense_slots=dense,
      table_slots=of_tables,
    )
