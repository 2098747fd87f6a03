"""Writes the files of a bundle from a checkpoint of a run."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax import trained
from dare_jax.bundle import arrays
from dare_jax.bundle import manifest as manifest_lib
from dare_jax.bundle import program_shapes
from dare_jax.bundle import raw_ids
from dare_jax.bundle.making import functions
from dare_jax.bundle.making import programs as programs_lib
from dare_jax.bundle.making import readme
from dare_jax.bundle.making import shape_list
from dare_jax.data import split_times
from dare_jax.data.history import real_times
from dare_jax.experiments import experiment
from dare_jax.experiments import run_config
from dare_jax.logs import derived_fields
from dare_jax.logs import id_map
from dare_jax.logs import time_units
from dare_jax.runs import environment
from dare_jax.store import history_store

# Time tables have few rows, and every score depends on them.
_WIDE = 'time_'
_EXAMPLE_ROWS = 5


@dataclasses.dataclass(frozen=True)
class Source:
  """What is exported.

  Attributes:
    output: the folder in which the bundle will lie.
    command: the command that makes the bundle again.
    run: the run, with one of its checkpoints.
    metrics: metric -> value of the checkpoint, as far as they are known.
  """

  output: str
  command: str
  run: trained.Trained
  metrics: Mapping[str, Any]


def write(
  source: Source,
  folder: pathlib.Path,
  shapes: tuple[program_shapes.Shape, ...],
  precision: str = 'float32',
) -> dict[str, Any]:
  """Writes all files of a bundle into an empty folder.

  Args:
    source: the run that is exported.
    folder: the folder of the bundle.
    shapes: the shapes of the static programs.
    precision: the dtype of the tables, one of `arrays.PRECISIONS`.

  Returns:
    name -> array, variables as they were stored.

  Raises:
    UsageError: a model that cannot be served from a history alone.
  """
  run = source.run
  config = run.model.config
  if experiment.clusters_history(config):
    raise errors.UsageError(
      f'model.search={config.search}: its clusters are known for the behaviors'
      ' of the prepared log alone, not for the histories that a server is'
      ' given; export a model with another search.'
    )
  served = functions.Served(run.model, run.history_length)
  capacity = shape_list.capacity(run.history_length, config.top_k)
  variables = functions.flat(jax.device_get(run.variables))
  fixed = capacity if config.keep_padding else None
  exporter = programs_lib.Exporter(served, variables, config.top_k)
  variables = {name: variables[name] for name in exporter.used()}
  stored, told = _save_variables(folder, variables, precision)
  exporter = programs_lib.Exporter(served, stored, config.top_k)
  content = {
    **_description(source, served),
    **told,
    'programs': _save_programs(folder, exporter.programs(shapes, fixed)),
    'precision': precision,
    'shapes': [list(dataclasses.astuple(s)) for s in shapes],
    'capacity': capacity,
    'ids': _save_ids(folder / 'ids', run),
    **_save_users(folder, run),
  }
  about = readme.text(content, _example(run), source.output)
  (folder / 'README.md').write_text(about)
  files = manifest_lib.files_in(folder)
  for entry in (*content['tables'].values(), *content['programs']):
    entry['sha256'] = files[entry['file']]['sha256']
  sealed = manifest_lib.seal({**content, 'files': files})
  path = folder / manifest_lib.FILE
  path.write_text(json.dumps(sealed, indent=1) + '\n')
  return stored


def _description(source: Source, served: functions.Served) -> dict[str, Any]:
  """Returns what a manifest tells of the run and the model."""
  run = source.run
  parts, config = run.experiment, run.model.config
  dims = lambda role: {f.name: f.dim(role) for f in config.features}
  options = parts.options
  has_unknown = options.data.unknown_rate > 0 or options.log.min_item_count > 1
  vocab = parts.store.vocab_sizes
  fields = (*served.fields, *served.context_fields)
  return {
    'format': manifest_lib.FORMAT,
    'model': parts.config.model.name,
    'plan': config.plan,
    'search': config.search,
    'scorer': config.scorer,
    'aggregation': config.aggregation,
    'fields': list(served.fields),
    'context_fields': list(served.context_fields),
    'slot_fields': list(served.slot_fields),
    'real_time': list(config.real_time),
    **({'times': _times(parts.store)} if config.real_time else {}),
    'numbers': list(parts.store.numbers),
    **({'sets': parts.store.sets} if parts.store.sets else {}),
    'vocab_sizes': {field: vocab[field] for field in fields},
    'attention_dims': dims('attention'),
    'representation_dims': dims('representation'),
    'top_k': config.top_k,
    'history_length': run.history_length,
    'unknown_id': id_map.UNKNOWN if has_unknown else None,
    'has_cached_keys': served.has_cached_keys,
    'keeps_all': served.keeps_all,
    'scores_alone': config.batch_statistics,
    'command': source.command,
    'step': run.step,
    'metrics': dict(source.metrics),
    'data_fingerprint': parts.store.fingerprint,
    'config_hash': run_config.digest(parts.config),
    'versions': environment.versions(),
  }


def _times(store: history_store.HistoryStore) -> dict[str, Any]:
  """Returns what `times.Times` needs of a log, counted from its end."""
  clock, scale = real_times.Clock(store), split_times.scale_of(store)
  last = store.behaviors.columns['timestamp'].max(keepdims=True)
  return {
    'unit': next(
      unit
      for unit, ticks in time_units.PER_SECOND.items()
      if ticks * scale == clock.ticks
    ),
    'scale': scale,
    'origin': int(real_times.origin(last // clock.ticks)[0]),
  }


def _save_variables(
  folder: pathlib.Path, variables: Mapping[str, Any], precision: str
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns variables as they are stored, and what the manifest tells."""
  stored: dict[str, Any] = {}
  told: dict[str, Any] = {'tables': {}, 'parameters': {}}
  for name, value in variables.items():
    kind = 'parameters' if '/' in name else 'tables'
    parts = {name: np.asarray(value)}
    if kind == 'tables' and not name.startswith(_WIDE):
      parts = _narrowed(name, parts[name], precision)
    for part, array in parts.items():
      file = f'{kind}/{part.replace("/", ".")}.npy'
      (folder / kind).mkdir(exist_ok=True)
      entry = arrays.save(folder / file, array)
      told[kind][part] = {'file': file, **entry}
      stored[part] = array
  return stored, told


def _narrowed(
  name: str, table: np.ndarray, precision: str
) -> dict[str, np.ndarray]:
  """Returns a table as it is stored, never wider than it is."""
  if precision == 'int8':
    whole, scale = arrays.quantized(table)
    return {name: whole, name + arrays.SCALE: scale}
  if precision == 'bfloat16':
    return {name: table.astype(jax.numpy.bfloat16)}
  return {name: table}


def _save_programs(
  folder: pathlib.Path, programs: Iterable[programs_lib.Program]
) -> list[dict[str, Any]]:
  (folder / 'programs').mkdir()
  told = []
  for program in programs:
    file = f'programs/{program.name}.jax'
    (folder / file).write_bytes(program.exported.serialize())
    told.append(
      {
        'file': file,
        'kind': program.kind,
        'shapes': dict(program.shapes),
        'platforms': list(program.exported.platforms),
      }
    )
  return told


def _save_ids(folder: pathlib.Path, run: trained.Trained) -> dict[str, Any]:
  folder.mkdir()
  store = run.experiment.store
  told = {}
  for field in (*store.fields, *store.context_fields):
    raw = store.raw_ids(field)
    ids = np.arange(id_map.FIRST, id_map.FIRST + len(raw), dtype=np.int32)
    read = run.experiment.as_read(field, ids).astype(np.int32)
    is_text = raw.dtype == pl.String
    told[field] = raw_ids.save(folder, field, raw.to_list(), read, is_text)
  return told


def _save_users(folder: pathlib.Path, run: trained.Trained) -> dict[str, Any]:
  """Writes what is known of each user; returns what the manifest tells."""
  store = run.experiment.store
  if not store.user_fields:
    return {}
  raw = store.raw_ids('user')
  rows = np.arange(len(raw), dtype=np.int32)
  is_text = raw.dtype == pl.String
  told = raw_ids.save(folder / 'ids', 'user', raw.to_list(), rows, is_text)
  (folder / 'users').mkdir()
  fields = {}
  for field in store.user_fields:
    read = run.experiment.as_read(field, store.user_values(field))
    file = f'users/{field}.npy'
    entry = arrays.save(folder / file, read.astype(np.int32))
    fields[field] = {'file': file, **entry}
  return {'users': {'ids': told, 'fields': fields}}


def _example(run: trained.Trained) -> readme.Example:
  """Returns some items of the catalogue, as a history and as candidates."""
  store = run.experiment.store
  raw = {
    field: store.raw_ids(field).head(_EXAMPLE_ROWS).to_list()
    for field in store.context_fields
  }
  items = np.arange(id_map.FIRST, store.vocab_sizes['item'])[:_EXAMPLE_ROWS]
  columns = {}
  for field in derived_fields.given(store.fields):
    own = items if field == 'item' else store.item_values[field][items]
    known = store.raw_ids(field).to_list()
    # Unknown categories have no raw value.
    rows = np.maximum(own - id_map.FIRST, 0)
    columns[field] = [known[row] for row in rows]
  return readme.Example(
    columns,
    {field: values[:2] for field, values in columns.items()},
    {field: values[0] for field, values in raw.items()},
  )
