"""From a config to the things a run is made of, with every field checked."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import functools
import math

import jax
import ml_collections
import numpy as np

from dare_jax import errors
from dare_jax import models
from dare_jax import search as searches
from dare_jax import tables as tables_lib
from dare_jax import types
from dare_jax.data import label_counts
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.data.history import real_times
from dare_jax.data.ids import known_ids
from dare_jax.data.ids import unknown_ids
from dare_jax.data.ids import unknown_report
from dare_jax.embeddings import content_vectors
from dare_jax.embeddings import set_tables
from dare_jax.evaluation import judge
from dare_jax.evaluation import metrics
from dare_jax.evaluation import retrieval
from dare_jax.experiments import config_check
from dare_jax.experiments import model_section
from dare_jax.experiments import options as run_options
from dare_jax.logs import derived_fields
from dare_jax.logs import options as log_options
from dare_jax.logs.builders import synthetic
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.parallel import processes
from dare_jax.process import numerics
from dare_jax.store import datasets
from dare_jax.store import history_store
from dare_jax.store import item_vectors
from dare_jax.store import set_members
from dare_jax.store import vector_store
from dare_jax.training import clustering
from dare_jax.training import feed
from dare_jax.training import given_tables
from dare_jax.training import prediction
from dare_jax.training import state as train_state
from dare_jax.training import state_parts

Known = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A run's parts.

  Attributes:
    config: the resolved config, as the run's folder keeps it.
    options: what the config says, checked.
    store: the open history store.
    pipelines: split, 'train', 'val' or 'test' -> its pipeline.
    trainer: model, losses and optimizers.
    total_steps: number of steps of the whole run: train.steps, or what
      train.epochs take.
    known: field -> bool [ids], whether training, or a run that this one starts
      from, reads an id; of sets, whether it reads a member.
    sets: field -> members as they are read, of fields whose values are sets.
  """

  config: ml_collections.ConfigDict
  options: run_options.RunOptions
  store: history_store.HistoryStore
  pipelines: Mapping[str, pipeline.Pipeline]
  trainer: train_state.Trainer
  total_steps: int
  known: Known
  sets: Mapping[str, set_members.SetMembers]

  @property
  def steps_per_epoch(self) -> float:
    return self.pipelines['train'].steps_an_epoch(self.options.train.batch_size)

  @functools.cached_property
  def labels(self) -> judge.Labels:
    """Targets by label, of each split: those that an evaluation counts."""
    rows = dict.fromkeys(self.pipelines)
    if self.options.evaluation.drop_last:
      size = self.options.evaluation.batch_size
      for split in ('val', 'test'):
        examples = self.pipelines[split].num_examples
        rows[split] = examples // size * size
    return {
      split: label_counts.count(
        self.store, batches.moments, self.options.data, rows[split]
      )
      for split, batches in self.pipelines.items()
    }

  def train_batches(self, start: int) -> feed.Feed:
    """Returns the stream of training batches from a step on."""
    train, size = self.pipelines['train'], self.options.train.batch_size
    return feed.Feed(
      self._placer(),
      lambda step: (train.train_batch(step, size), None),
      start,
      self.options.prefetch,
    )

  def _placer(self, only_wider: bool = False) -> feed.Placer:
    on_host = self.options.optim.unique_rows == 'host'
    vocab_sizes = self.trainer.vocab_sizes if on_host else {}
    return feed.Placer(self.trainer.mesh, vocab_sizes, only_wider)

  def first_batch(self) -> types.Batch:
    """Returns this process's part of step 0's batch, on the host."""
    train = self.pipelines['train']
    return train.train_batch(0, self.options.train.batch_size)

  def init_state(self) -> train_state.TrainState:
    """Returns the fresh state of step 0."""
    counts = self._counts() if self.trainer.observes_gradients else None
    state = self.trainer.init(self.options.seed, self.first_batch(), counts)
    if self.clusters_history:
      state = clustering.blank(state, self.store, self.trainer.mesh)
    if self._tunes_vectors:
      tables = state.tables['encoder']
      for name, table in self._vectors().items():
        tables = tables_lib.write_table(tables, name, table)
      state = dataclasses.replace(state, tables={'encoder': tables})
    return self.with_given(state)

  def with_given(self, state: train_state.TrainState) -> train_state.TrainState:
    """Returns a state with what checkpoints do not have."""
    tables = {} if self._tunes_vectors else self._vectors()
    sets = set_tables.on_mesh(self.sets, self.trainer.mesh)
    return state_parts.with_given(state, tables, sets)

  @property
  def _tunes_vectors(self) -> bool:
    return content_vectors.TABLE in self.trainer.trained_tables.specs

  def _vectors(self) -> dict[str, jax.Array]:
    """Returns the table of content vectors by its name, where there is one."""
    if not isinstance(self.store, vector_store.VectorStore):
      return {}
    vectors, trainer = self.store.vectors.vectors, self.trainer
    made = given_tables.load(trainer.tables, trainer.mesh, vectors)
    return {content_vectors.TABLE: made}

  def _counts(self) -> dict[str, np.ndarray]:
    """Returns how often each row of tables occurs in the log, as it is read."""
    counts = {
      field: np.bincount(
        self.as_read(
          field, np.asarray(self.store.behaviors.columns[f'{field}_id'])
        ),
        minlength=self.store.vocab_sizes[field],
      )
      for field in self.store.fields
    }
    of_sets = {f: own.counts(counts[f]) for f, own in self.sets.items()}
    return {**counts, **of_sets}

  def abstract_state(self) -> train_state.TrainState:
    """Returns shapes, dtypes and shardings of a state; allocates nothing."""
    state = self.trainer.abstract_state(self.first_batch())
    if self.clusters_history:
      shapes = clustering.shapes(self.store, self.trainer.mesh)
      state = dataclasses.replace(state, clusters=shapes)
    trainer, given = self.trainer, {}
    if trainer.tables.specs.keys() != trainer.trained_tables.specs.keys():
      shape = given_tables.shape(trainer.tables, trainer.mesh)
      given = {content_vectors.TABLE: shape}
    sets = set_tables.shapes(self.sets, trainer.mesh)
    return state_parts.with_given(state, given, sets)

  @numerics.of_runs()
  def predict(
    self,
    state: train_state.TrainState,
    split: str,
    check_stop: Callable[[], None] = lambda: None,
  ) -> metrics.Predictions:
    """Returns a state's predictions for a split, as `prediction.predict`."""
    return prediction.predict(
      self.trainer.predict_step,
      state,
      self.pipelines[split],
      self._placer(only_wider=True),
      self.options.evaluation.batch_size,
      check_stop,
      self._truth,
      self.options.evaluation.drop_last,
    )

  def unknown_report(self) -> str:
    """Returns how many ids are unknown, and what share of the targets is."""
    moments = {name: made.moments for name, made in self.pipelines.items()}
    fields = derived_fields.given(self.known)
    known = {field: self.known[field] for field in fields}
    return unknown_report.short(self.store, moments, self.options.data, known)

  def as_read(self, field: str, ids: np.ndarray) -> np.ndarray:
    """Returns ids as the model reads them: unknown ones for those not known."""
    return unknown_ids.as_known(ids, self._known_or_all.get(field))

  def batch_as_read(self, batch: types.Batch) -> types.Batch:
    """Returns a batch of the store's ids as the model reads it."""
    return unknown_ids.batch_as_known(batch, self._known_or_all)

  @property
  def _known_or_all(self) -> Known:
    return self.known if self.options.data.unknown_rate > 0 else {}

  def check(self, parts: Iterable[str] = splits.NAMES) -> None:
    """Checks what would else be found in the midst of a run.

    Args:
      parts: the splits that will be used.

    Raises:
      UsageError: a split without a possible negative for some moment, or a
        made log's planted truth that is damaged.
    """
    for name in parts:
      self.pipelines[name].check()
    retrieval.truth_of(self.store)

  @functools.cached_property
  def _truth(self) -> synthetic.Truth | None:
    """Read and checked once, not at every validation."""
    return processes.in_turn(lambda: retrieval.truth_of(self.store))

  @property
  def clusters_history(self) -> bool:
    """Whether the search works on clusters of behaviors."""
    return clusters_history(self.trainer.model.config)

  def cluster(self, state: train_state.TrainState) -> train_state.TrainState:
    """Returns the state with the histories clustered by its tables."""
    return clustering.refresh(
      state,
      self.store,
      self.trainer.model.config.plan,
      self.trainer.tables,
      self.options.clusters.size,
      [self.pipelines[split] for split in ('val', 'test')],
      self._known_or_all.get('item'),
    )


def clusters_history(model: models.RankerConfig) -> bool:
  """Whether a model's search works on clusters of behaviors."""
  return searches.SEARCHES[model.search].clusters_history


def load(
  config: ml_collections.ConfigDict,
  open_store: Callable[[], history_store.HistoryStore] | None = None,
  known_before: Callable[[history_store.HistoryStore], Known] | None = None,
) -> Experiment:
  """Checks the config, opens the data, builds the model.

  Args:
    config: the config of a run.
    open_store: called on each process in turn; by default, what was prepared
      of the log that the config names is opened, or it is prepared.
    known_before: returns the ids of a store that earlier runs knew, as
      `lineage.known_before`.

  Raises:
    UsageError: a field out of range, an unknown name, bad data.
  """
  config_check.check(config)
  options = run_options.of_config(config)
  # A bad model section is told before the data is read.
  model_section.check(config)
  is_first = processes.is_first()
  store = processes.in_turn(open_store or (lambda: store_of(config, is_first)))
  processes.agree_on({'the fingerprint of the data': store.fingerprint})
  moments = splits.make_splits(store, options.data)
  every_set = set_members.of_store(store)
  rows = known_ids.rows_of_training(
    store, moments['train'], options.data, every_set
  )
  before = known_before(store) if known_before is not None else None
  known, sets = known_ids.as_read(rows, every_set, options.data, before)
  real_times.check(store, tuple(config.model.real_time))
  shared = {'train': options.train.moments_per_window}
  model = model_of(config, store, every_set)
  mesh = mesh_lib.make()
  layout = pipeline.Layout(
    feed.share_of(mesh),
    model.config.top_k,
    clusters_history(model.config),
    bool(model.config.real_time),
  )
  pipelines = {
    name: pipeline.Pipeline(
      store,
      part,
      name,
      options.data,
      options.seed,
      shared.get(name, 1),
      layout,
      known,
    )
    for name, part in moments.items()
  }
  _check_drop_last(options.evaluation, pipelines)
  steps = _total_steps(options.train, pipelines['train'])
  trainer = train_state.Trainer(
    model,
    options.optim,
    steps,
    mesh,
    options.train.observe_gradients,
  )
  return Experiment(
    config, options, store, pipelines, trainer, steps, known, sets
  )


def _check_drop_last(
  evaluation: run_options.EvalOptions,
  pipelines: Mapping[str, pipeline.Pipeline],
) -> None:
  """Raises UsageError if the rows of a split are left out altogether."""
  for name in ('val', 'test'):
    rows = pipelines[name].num_examples
    if evaluation.drop_last and rows < evaluation.batch_size:
      raise errors.UsageError(
        f'eval.drop_last=True leaves out all {rows} rows of {name}: they are'
        f' fewer than eval.batch_size={evaluation.batch_size}; lower that.'
      )


def store_of(
  config: ml_collections.ConfigDict, check_input: bool = True
) -> history_store.HistoryStore:
  """Opens what was prepared of the log and the vectors of a config.

  Args:
    config: the config of a run.
    check_input: as for `datasets.open_or_prepare`.

  Raises:
    UsageError: bad data, or vectors of other items.
  """
  log = log_options.of_section(config.data)
  store = datasets.open_or_prepare(log, check_input=check_input)
  if config.data.item_vectors is None:
    return store
  vectors = item_vectors.open_or_prepare(config.data.item_vectors, log.data_dir)
  return vector_store.attach(store, vectors)


def model_of(
  config: ml_collections.ConfigDict,
  store: history_store.HistoryStore,
  sets: Mapping[str, set_members.SetMembers] | None = None,
) -> models.Ranker:
  """Returns the model of a config for the fields and ids of a store.

  Args:
    config: the config of a run.
    store: its data.
    sets: `set_members.of_store`, where it is there already.
  """
  vocab = store.vocab_sizes
  return model_section.build(
    config,
    {field: vocab[field] for field in store.fields},
    {field: vocab[field] for field in store.context_fields},
    vector_width=vector_store.width_of(store),
    sets=set_members.of_store(store) if sets is None else sets,
    num_clusters=int(np.diff(store.behaviors.offsets).max(initial=1)),
  )


def _total_steps(
  train: run_options.TrainOptions, batches: pipeline.Pipeline
) -> int:
  if train.steps is not None:
    return train.steps
  return math.ceil(train.epochs * batches.steps_an_epoch(train.batch_size))
