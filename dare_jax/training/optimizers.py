"""The tables of a ranker; the optimizers of these and of all else."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import re
from typing import NamedTuple

import jax
import optax

from dare_jax import embeddings
from dare_jax import models
from dare_jax import tables as tables_lib
from dare_jax.embeddings import content_vectors
from dare_jax.training import options as train_options


class RankerTables(NamedTuple):
  """The tables of a ranker.

  Attributes:
    every: all of them.
    trained: those that training moves.
    updater: what moves these.
  """

  every: tables_lib.TableSet
  trained: tables_lib.TableSet
  updater: tables_lib.TableUpdater


def tables_of(
  config: models.RankerConfig,
  options: train_options.Options,
  total_steps: int,
  mesh: jax.sharding.Mesh,
) -> RankerTables:
  """Returns the tables of a ranker, and what moves them.

  Args:
    config: what shapes the ranker.
    options: how it is trained.
    total_steps: length of the run, for the schedule.
    mesh: the mesh on which the tables lie; on TPUs they lie joined unless
      options say otherwise.

  Raises:
    UsageError: as `table_optimizers`.
  """
  every = table_set(config, options)
  trained = trained_set(config, every)
  made = table_optimizers(options, trained.specs, total_steps)
  by_platform = 'joined' if mesh.devices.flat[0].platform == 'tpu' else 'apart'
  if (options.table_layout or by_platform) == 'joined':
    every = tables_lib.TableSet(every.specs, made)
    trained = tables_lib.TableSet(trained.specs, made)
  return RankerTables(every, trained, tables_lib.TableUpdater(trained, made))


def stored_model(
  config: models.RankerConfig, tables: tables_lib.TableSet
) -> models.Ranker:
  """Returns a ranker with as many rows as its tables have in storage."""
  rows = {
    spec.field: tables.stored_rows(name) for name, spec in tables.specs.items()
  }
  content = tuple(
    dataclasses.replace(feature, vocab_size=rows[feature.name])
    for feature in config.content
  )
  return models.Ranker(dataclasses.replace(config, content=content))


def table_set(
  config: models.RankerConfig, options: train_options.Options
) -> tables_lib.TableSet:
  """Returns the tables of a ranker; large ones of content are split.

  Those of a field of sets are of its members, see `set_tables`.

  Args:
    config: what shapes the ranker.
    options: how the ranker is trained, which says from how many rows on a table
      is large.
  """
  plan = embeddings.PLANS[config.plan]
  content = {feature.name for feature in config.content}

  def of(feature: embeddings.Feature, suffix: str) -> tables_lib.TableSpec:
    """Returns the spec of one table."""
    is_large = feature.vocab_size >= options.row_sparse_from
    is_set = isinstance(feature, embeddings.SetFeature)  # Of members: whole.
    split = is_large and feature.name in content and not is_set
    return tables_lib.TableSpec(
      field=feature.name,
      rows=feature.trained_rows,
      dim=feature.table_dim(plan, suffix),
      split=split,
      dtype=options.table_dtype if split else 'float32',
    )

  return tables_lib.TableSet(
    {
      name: of(feature, suffix)
      for feature in config.features
      for name, suffix in feature.tables(plan).items()
    }
  )


def trained_set(
  config: models.RankerConfig, tables: tables_lib.TableSet
) -> tables_lib.TableSet:
  """Returns those of a ranker's tables that training moves."""
  frozen = {f.name for f in config.features if content_vectors.is_frozen(f)}
  return tables_lib.TableSet(
    {n: spec for n, spec in tables.specs.items() if spec.field not in frozen}
  )


def dense_optimizer(
  options: train_options.Options, total_steps: int
) -> optax.GradientTransformation:
  """Returns Adam for heads and projections, as published."""
  return optax.adam(_rate(options, options.learning_rate, total_steps))


def table_optimizers(
  options: train_options.Options, names: Iterable[str], total_steps: int
) -> dict[str, tables_lib.TableOptimizer]:
  """Returns the optimizer of each table, by name.

  Args:
    options: how the ranker is trained: optimizer and rates.
    names: names of the tables, such as `item_attention`.
    total_steps: length of the run, for the schedule.

  Raises:
    UsageError: a malformed `optim.by_table`, or a pattern there that no table
      has.
  """
  names = list(names)
  rules = options.table_rules(names)
  rate = options.table_learning_rate
  rate = options.learning_rate if rate is None else rate
  others = train_options.TableRule('.*', rate, options.table_weight_decay)
  make = tables_lib.OPTIMIZERS[options.tables]
  made = {}
  for name in names:
    rule = next((r for r in rules if re.fullmatch(r.pattern, name)), others)
    schedule = _rate(options, rule.learning_rate, total_steps)
    made[name] = make(schedule, rule.weight_decay)
  return made


def _rate(
  options: train_options.Options, rate: float, total_steps: int
) -> tables_lib.Rate:
  """The learning rate by step. A run made longer decays over its new length."""
  if options.schedule == 'constant':
    return rate
  return optax.linear_schedule(rate, 0.0, max(total_steps, 1))
