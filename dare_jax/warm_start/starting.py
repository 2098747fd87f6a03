"""A run that starts from another one, of an older log or of another plan.

Ids of both logs are matched by their raw values: what the older run knew keeps
its rows, what is new has fresh ones. Optimizer slots and the step start anew;
running statistics go on.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dare_jax import embeddings
from dare_jax import errors
from dare_jax import layers
from dare_jax import tables as tables_lib
from dare_jax.checkpoints import checkpoint
from dare_jax.experiments import experiment
from dare_jax.experiments import run_data
from dare_jax.logs import id_map
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.parallel import processes
from dare_jax.store import history_store
from dare_jax.training import clustering
from dare_jax.training import options as train_options
from dare_jax.training import state as train_state
from dare_jax.warm_start import derivation
from dare_jax.warm_start import lineage
from dare_jax.warm_start import narrowing

# Rows of a table that a device moves at a time.
_CHUNK = 1 << 18
_CONTEXT = 'context_tables_'
# Of rows, in running statistics; where they are by steps there is none.
_COUNT = 'count'
# Parts of a state that are kept, besides tables; the others are let go.
_COPIED = ('params', 'batch_stats', 'constants')


def start_from(
  run: experiment.Experiment, older: Older
) -> train_state.TrainState:
  """Returns a state of step 0 that goes on from another run's best, else last.

  Beside the new state, one table of the older run is held at a time.

  Args:
    run: the new run.
    older: the run to start from.

  Raises:
    UsageError: it does not fit: other ids, other heads.
  """
  state = run.init_state()
  rows = processes.in_turn(
    lambda: {field: older.rows(field) for field in older.matched_fields}
  )
  maps = older.narrowing_maps()
  tables = dict(state.tables['encoder'])
  rest: dict[str, Any] = {}
  for path, leaf in older.read():
    part, *names = (_name(key) for key in path)
    if part in _COPIED:
      rest['/'.join([part, *names])] = leaf
    targets = older.targets_of(names[-1]) if part == 'tables' else ()
    own = set(tables_lib.table_names(tables))
    for name in own & set(targets):  # Given ones may be frozen here.
      table = tables_lib.read_table(tables, name)
      table = older.move(table, leaf, name, rows, maps.get(name))
      tables = tables_lib.write_table(tables, name, table)
      del table
    del leaf  # Else it is held while the next one is read.
  older.tell(rows)
  return dataclasses.replace(
    state,
    tables={'encoder': tables},
    params=older.fit(state.params, rest, 'params', rows),
    batch_stats=older.fit(state.batch_stats, rest, 'batch_stats', rows),
    constants=_same_constants(state.constants, rest),
  )


class Older:
  """The run to start from, and how its parts fit the new one."""

  def __init__(self, run: experiment.Experiment, workdir: epath.Path) -> None:
    """Opens the older run; reads no table yet.

    Args:
      run: the new run.
      workdir: the workdir of the older run.

    Raises:
      UsageError: no run or checkpoint there; its data is gone; or it does not
        fit: other fields, other widths, a plan that does not follow from its.
    """
    self._run, self._workdir = run, workdir
    self._config = processes.in_turn(self._read_config)
    self._checkpoints = checkpoint.Checkpoints(
      workdir / 'checkpoints', read_only=True
    )
    best = self._checkpoints.best_step
    step = self._checkpoints.last_step if best is None else best
    processes.agree_on({"the step of train.init_from's checkpoint": step})
    if step is None:
      raise self._refuse('there is no checkpoint yet.')
    self._step = step
    self._store = processes.in_turn(self._open_store)
    found = self._store.fingerprint
    processes.agree_on({"the fingerprint of train.init_from's data": found})
    lineage.check_fields(self._workdir, self._store, run.store)
    self._model = experiment.model_of(self._config, self._store)
    options = train_options.of_section(self._config.optim)
    self._trainer = train_state.Trainer(
      self._model,
      dataclasses.replace(options, table_layout='apart'),  # As it is saved.
      1,
      run.trainer.mesh,
      self._config.train.observe_gradients,
    )
    derivation.check_widths(self._model.config, run.trainer.model.config)
    self._sources = derivation.sources(
      self._model.config.plan, run.trainer.model.config.plan
    )
    self._old_names = derivation.table_names(self._model.config)
    self._new_names = derivation.table_names(run.trainer.model.config)

  def _refuse(self, why: str) -> errors.UsageError:
    return lineage.refusal(self._workdir, why)

  def _read_config(self) -> ml_collections.ConfigDict:
    return lineage.read_config(self._workdir)

  def _open_store(self) -> history_store.HistoryStore:
    return run_data.open_store(self._config, self._workdir)

  @property
  def matched_fields(self) -> tuple[str, ...]:
    return (*self._store.fields, *self._store.context_fields, 'time')

  def rows(self, field: str) -> np.ndarray:
    """Returns each new row's row in the older run's tables; -1: none."""
    if field == 'time':
      return np.arange(self._model.config.time.vocab_size)
    return lineage.matched_rows(
      self._workdir, self._store, self._run.store, field
    )

  def tell(self, rows: Mapping[str, np.ndarray]) -> None:
    """Prints which run this one starts from, and how many rows it keeps.

    Args:
      rows: field -> int64 [ids], the row of each id in the older run; -1: none.
    """
    kept = ', '.join(
      f'{int((own >= 0).sum()):,} of {len(own):,} {field}'
      for field, own in rows.items()
      if field != 'time'
    )
    if processes.is_first():
      print(
        f'starting from {self._workdir}, step {self._step}; rows kept: {kept}',
        flush=True,
      )

  def read(self) -> Iterator[tuple[tuple[Any, ...], jax.Array]]:
    """Yields the leaves of the checkpoint, one by one."""
    shapes = self._trainer.abstract_state(self._run.first_batch())
    if self._clusters_history:
      clusters = clustering.shapes(self._store, self._trainer.mesh)
      shapes = dataclasses.replace(shapes, clusters=clusters)
    fingerprint = self._store.fingerprint
    return self._checkpoints.read(self._step, shapes, fingerprint)

  @property
  def _clusters_history(self) -> bool:
    return experiment.clusters_history(self._model.config)

  def targets_of(self, source: str) -> list[str]:
    """Returns the new tables that start as an old one."""
    own = self._old_names[source]
    return [
      name
      for name, (field, suffix) in self._new_names.items()
      if (field, self._sources.get(suffix, suffix)) == own
    ]

  def narrowing_maps(self) -> dict[str, np.ndarray]:
    """Returns the map of each new table whose vectors are not the old ones."""
    old, new = self._model.config, self._run.trainer.model.config
    if not derivation.is_narrower(old, new):
      return {}
    sides = embeddings.PLANS[old.plan].table_of
    uses = [sides['attention', side] for side in ('target', 'behavior')]
    wanted = {f'{f.name}_{use}' for f in old.features for use in uses}
    grams, origin = {}, None
    for path, leaf in self.read():
      name = _name(path[-1])
      if _name(path[0]) != 'tables' or name not in wanted:
        continue
      is_row = self._is_row(name, leaf)
      grams[name] = np.asarray(narrowing.gram(leaf, is_row), np.float64)
      if name == f'time_{uses[0]}':
        origin = np.asarray(leaf[0], np.float64)
    return derivation.maps(old, new, grams, origin)

  def _is_row(self, name: str, table: jax.Array) -> jax.Array:
    """Returns which places of a table hold the row of an id."""
    field, _ = self._old_names[name]
    real = np.zeros(len(table), bool)
    first = 1 if field == 'time' else id_map.UNKNOWN
    rows = np.arange(first, self._trainer.tables.specs[name].rows)
    real[self._trainer.tables.position(field, rows)] = True
    return _place(real, table.sharding)

  def move(
    self,
    table: jax.Array,
    old: jax.Array,
    name: str,
    rows: Mapping[str, np.ndarray],
    matrix: np.ndarray | None,
  ) -> jax.Array:
    """Returns a new table, with the rows that an old one has as they are there.

    Args:
      table: the new table, in the order of storage; it is donated.
      old: the old table, in the order of storage.
      name: the name of the new table.
      rows: field -> int64 [ids], the row of each id in the older run; -1: none.
      matrix: float [old dim, dim], by which old rows are multiplied; None: by
        nothing.
    """
    field, _ = self._new_names[name]
    new_tables, old_tables = self._run.trainer.tables, self._trainer.tables
    known = np.flatnonzero(rows[field] >= 0)
    source = np.full(len(table), -1, np.int32)
    source[new_tables.position(field, known)] = old_tables.position(
      field, rows[field][known]
    )
    if matrix is not None:
      matrix = matrix.astype(np.float32)
    is_split = [field in t.vocab_sizes for t in (new_tables, old_tables)]
    moved = _move_split if all(is_split) else _move_whole
    return _move(moved, table, old, source, matrix)

  def fit(
    self,
    fresh: Any,
    rest: Mapping[str, jax.Array],
    part: str,
    rows: Mapping[str, np.ndarray],
  ) -> Any:
    """Returns the old values of a tree of the new run.

    Raises:
      UsageError: the trees, or the shapes of an array, differ.
    """
    names = {name for name in rest if name.split('/')[0] == part}
    if self._run.trainer.model.config.norm_momentum is not None:
      names = {name for name in names if name.split('/')[-1] != _COUNT}
    found = []
    for path, leaf in jax.tree.leaves_with_path(fresh):
      keys = [_name(key) for key in path]
      name = '/'.join([part, *keys])
      old = rest.get(name)
      names.discard(name)
      if old is not None and keys[0].startswith(_CONTEXT):
        own = rows[keys[0].removeprefix(_CONTEXT)]
        own = own.astype(np.int32)
        found.append(_move(_move_whole, leaf, old, own, None))
        continue
      if old is None and keys[-1] == _COUNT:
        # By steps, that run's statistics are as good as those of many rows.
        found.append(jnp.full_like(leaf, layers.ENOUGH))
        continue
      if old is None or old.shape != leaf.shape:
        has = 'nothing of that name' if old is None else old.shape
        raise self._refuse(
          f'{name} has the shape {leaf.shape} here, but that run has {has};'
          ' heads, projections and scorer must be the same.'
        )
      found.append(old)
    if names:
      raise self._refuse(
        f'it has {min(names)}, for which this run has no place; heads,'
        ' projections and scorer must be the same.'
      )
    return jax.tree.unflatten(jax.tree.structure(fresh), found)


def _same_constants(fresh: Any, rest: Mapping[str, jax.Array]) -> Any:
  """Returns the random directions of the older run where they fit."""

  def choose(path: Any, leaf: jax.Array) -> jax.Array:
    old = rest.get('/'.join(['constants', *map(_name, path)]))
    return leaf if old is None or old.shape != leaf.shape else old

  return jax.tree.map_with_path(choose, fresh)


def _name(key: Any) -> str:
  return str(
    getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))
  )


def _place(values: np.ndarray, sharding: Any) -> jax.Array:
  return jax.make_array_from_callback(
    values.shape, sharding, lambda index: values[index]
  )


def _move(
  move: Callable[..., jax.Array],
  table: jax.Array,
  old: jax.Array,
  source: np.ndarray,
  matrix: np.ndarray | None,
) -> jax.Array:
  """Returns a table whose row i is the old row source[i], if that is >= 0."""
  sharding: Any = table.sharding
  function = jax.jit(
    functools.partial(move, sharding.mesh),
    donate_argnums=0,
    out_shardings=sharding,
  )
  return function(table, old, _place(source, sharding), matrix)


def _move_whole(
  mesh: Any, table: Any, old: Any, source: Any, matrix: Any
) -> jax.Array:
  """Moves the rows of tables one of which, at least, is small."""
  del mesh
  return _take_over(table, old[jnp.maximum(source, 0)], source, matrix)


def _move_split(
  mesh: Any, table: Any, old: Any, source: Any, matrix: Any
) -> jax.Array:
  """Moves the rows of tables that are split over the devices, in chunks."""
  move = jax.shard_map(
    functools.partial(_move_part, len(old)),
    mesh=mesh,
    in_specs=(*[mesh_lib.SPLIT] * 3, mesh_lib.WHOLE),
    out_specs=mesh_lib.SPLIT,
  )
  return move(table, old, source, matrix)


def _move_part(
  old_rows: int, table: Any, old: Any, source: Any, matrix: Any
) -> jax.Array:
  """Fills this device's part of a table, chunk by chunk."""
  height = min(len(table), _CHUNK)

  def move(number: jax.Array, table: jax.Array) -> jax.Array:
    """Fills one chunk of the table's rows."""
    # The last chunk overlaps the one before, and does the same there again.
    start = jnp.minimum(number * height, len(table) - height)
    own = jax.lax.dynamic_slice_in_dim(source, start, height)
    rows = jax.lax.dynamic_slice_in_dim(table, start, height)
    beyond = old_rows + jnp.arange(height, dtype=own.dtype)
    asked = jnp.where(own < 0, beyond, own)
    order = jnp.argsort(asked)
    (found,) = tables_lib.gather_rows([old], asked[order])
    values = jnp.zeros_like(found).at[order].set(found, unique_indices=True)
    rows = _take_over(rows, values, own, matrix)
    return jax.lax.dynamic_update_slice_in_dim(table, rows, start, 0)

  return jax.lax.fori_loop(0, -(-len(table) // height), move, table)


def _take_over(
  rows: jax.Array, values: jax.Array, source: jax.Array, matrix: Any
) -> jax.Array:
  if matrix is not None:
    values = jnp.matmul(
      values.astype(jnp.float32), matrix, precision=jax.lax.Precision.HIGHEST
    )
  return jnp.where(source[:, None] >= 0, values.astype(rows.dtype), rows)
