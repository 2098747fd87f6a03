"""What a run is about to do, in plain words on one screen."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import os
import textwrap

import jax
import numpy as np

from dare_jax.data import split_times
from dare_jax.experiments import experiment
from dare_jax.store import vector_store
from dare_jax.training import state as train_state
from dare_jax.training import state_summary

_INDENT, _NAMES, _WIDTH = 2, 14, 80


def aligned(pairs: Iterable[tuple[str, str]]) -> str:
  """Returns names and texts in two columns, within the width of a screen."""
  lines = []
  indent = ' ' * (_INDENT + _NAMES)
  for name, text in pairs:
    wrapped = textwrap.wrap(
      text,
      _WIDTH,
      initial_indent=indent,
      subsequent_indent=indent,
      break_long_words=False,
      break_on_hyphens=False,
    )
    lines += [f'{"":{_INDENT}}{name:{_NAMES}}{wrapped[0].lstrip()}']
    lines += wrapped[1:]
  return '\n'.join(lines)


def describe(
  parts: experiment.Experiment,
  shapes: train_state.TrainState,
  workdir: os.PathLike[str],
  step: int | None,
) -> str:
  """Returns the model, the data, the sizes and the length of a run.

  Args:
    parts: the experiment that the run trains.
    shapes: the training state as shapes and dtypes.
    workdir: the folder of the run.
    step: the newest checkpoint's, to go on from; None: it begins.

  Raises:
    UsageError: a moment of evaluation without a possible negative.
  """
  config = parts.config
  title = f'{config.model.name} on {config.data.name}, seed {config.seed}'
  pairs = [
    ('model', _model(parts)),
    *_data(parts),
    *_sizes(parts, shapes),
    ('training', _training(parts)),
    ('devices', _devices()),
    ('workdir', f'{os.fspath(workdir)}: {_begins(parts, step)}'),
  ]
  return f'{title}\n{aligned(pairs)}'


def _model(parts: experiment.Experiment) -> str:
  model = parts.trainer.model.config
  is_limited = model.search != 'all'
  top_k = f' of the top {model.top_k}' if is_limited else ''
  return (
    f'plan {model.plan}, scorer {model.scorer}, search {model.search}{top_k},'
    f' aggregation {model.aggregation}'
  )


def _data(parts: experiment.Experiment) -> Iterator[tuple[str, str]]:
  store, data = parts.store, parts.options.data
  rows = store.impressions or store.behaviors
  kind = 'behaviors' if store.impressions is None else 'impressions'
  log = store.manifest['provenance'].get('input') or parts.options.log.name
  yield (
    'log',
    f'{log}: {len(rows):,} {kind} of {store.num_users:,} users,'
    f' {split_times.span(store)}',
  )
  yield 'prepared in', str(store.path)
  counts = ', '.join(
    f'{split} {len(batches.moments):,}'
    for split, batches in parts.pipelines.items()
  )
  yield 'moments', f'{counts}; split {data.split}'
  if store.impressions is not None:
    targets = f'up to {1 + data.num_negatives} logged impressions'
  else:
    targets = f'one behavior and {data.num_negatives} sampled negatives'
  if not data.group_candidates:
    targets = f'{targets}, each a row of its own'
  yield (
    'each moment',
    f'up to {data.history_length} behaviors before it; to score {targets}',
  )
  yield 'unknown ids', parts.unknown_report()
  if isinstance(store, vector_store.VectorStore):
    yield 'item vectors', vector_store.coverage(store)


def _sizes(
  parts: experiment.Experiment, shapes: train_state.TrainState
) -> Iterator[tuple[str, str]]:
  by_role: dict[str, list[str]] = {}
  for name, spec in parts.trainer.tables.specs.items():
    role = name.removeprefix(f'{spec.field}_').replace('_', ' ')
    size = f'{spec.field} {spec.rows:,} x {spec.dim}'
    by_role.setdefault(role, []).append(size)
  tables = '; '.join(
    f'{role}: {", ".join(sizes)}' for role, sizes in by_role.items()
  )
  yield 'rows x width', tables
  counts = state_summary.count_parameters(shapes, parts.trainer.trained_tables)
  yield (
    'parameters',
    f'{counts["attention_tables"]:,} in attention tables,'
    f' {counts["representation_tables"]:,} in representation and shared ones,'
    f' {counts["other"]:,} others',
  )


def _training(parts: experiment.Experiment) -> str:
  options, steps = parts.options, parts.total_steps
  periods = [
    f'{what} {f"every {every:,} steps and " if every else ""}at the end'
    for what, every in (
      ('validated', options.evaluation.every_steps),
      ('saved', options.checkpoint.every_steps),
    )
  ]
  return (
    f'{steps:,} steps of {options.train.batch_size:,} moments,'
    f' {steps / parts.steps_per_epoch:.3g} epochs; {", ".join(periods)}'
  )


def _devices() -> str:
  devices = jax.devices()
  kinds, counts = np.unique(
    [device.device_kind for device in devices], return_counts=True
  )
  text = ', '.join(
    f'{count} x {kind}' for kind, count in zip(kinds, counts, strict=True)
  )
  processes = jax.process_count()
  return text if processes == 1 else f'{text}, of {processes} processes'


def _begins(parts: experiment.Experiment, step: int | None) -> str:
  origin = parts.options.train.init_from
  if step is not None:
    return f'goes on from step {step:,}'
  return (
    'begins' if origin is None else f'begins with what {origin} has learned'
  )
