"""The paths in a run's config.json, and the data that the run was trained on.

Paths are kept as they were given and, beside that, absolute: a run is read from
any folder, and after it was moved with its data. The fingerprint that its
checkpoints tell decides which data is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

from etils import epath
import ml_collections

from dare_jax import errors
from dare_jax import storage
from dare_jax.checkpoints import description
from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from dare_jax.store import history_store
from dare_jax.store import item_vectors
from dare_jax.store import vector_files
from dare_jax.store import vector_store

_FIELDS = (
  'data.data_dir',
  'data.input',
  'data.item_vectors',
  'train.init_from',
)
# In config.json: field -> absolute path, and that of the workdir.
_KEY = 'absolute_paths'


def with_paths(
  fields: Mapping[str, Any], workdir: epath.Path
) -> dict[str, Any]:
  """Returns what config.json holds: the fields, and where their paths lead."""
  paths = {
    field: str(storage.locate(fields[field]))
    for field in _FIELDS
    if fields[field]
  }
  return {**fields, _KEY: {'workdir': str(workdir), **paths}}


def without_paths(saved: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields alone."""
  return {field: value for field, value in saved.items() if field != _KEY}


def is_same_place(field: str, saved: Mapping[str, Any], given: Any) -> bool:
  """Whether a path of a run leads where it did, however it is given now.

  Args:
    field: the name of a config field; False for fields that hold no path.
    saved: what the run's config.json holds.
    given: the value that the field has now.
  """
  before = saved.get(_KEY, {}).get(field)
  if before is None or not given:
    return False
  return str(storage.locate(given)) == before


def open_store(
  config: ml_collections.ConfigDict, workdir: epath.Path
) -> history_store.HistoryStore:
  """Opens the data that a run was trained on; prepares nothing.

  Args:
    config: the config of the run.
    workdir: the folder of the run.

  Raises:
    UsageError: it is gone, or damaged.
  """
  path = _find(config, workdir)
  if path is None:
    places = ' or '.join(map(str, _places(config, workdir)))
    raise errors.UsageError(
      f'{workdir}: the data that the run was trained on is not in {places}; put'
      ' it back there, or where it lies now, give its folder to the command'
      ' that trained the run, --config.data.data_dir=DIR.'
    )
  return _with_vectors(history_store.open_store(path), config, workdir)


def open_or_prepare(
  config: ml_collections.ConfigDict, workdir: epath.Path
) -> history_store.HistoryStore:
  """Opens the data of a run that goes on; prepares it if it is gone.

  Args:
    config: the config of the run, as it is given now.
    workdir: the folder of the run, which has checkpoints.

  Raises:
    UsageError: bad input, or damaged data.
  """
  path = _find(config, workdir)
  if path is None:
    log = log_options.of_section(config.data)
    store = datasets.open_or_prepare(log, check_input=False)
  else:
    store = history_store.open_store(path)
  return _with_vectors(store, config, workdir, is_given=True)


def _with_vectors(
  store: history_store.HistoryStore,
  config: ml_collections.ConfigDict,
  workdir: epath.Path,
  is_given: bool = False,
) -> history_store.HistoryStore:
  """Returns a run's store with the vectors that the run was trained with.

  Args:
    store: the history store of the run.
    config: the config of the run.
    workdir: the folder of the run.
    is_given: whether the config of now names the file of vectors, which must
      then be the same file.

  Raises:
    UsageError: other vectors, or none.
  """
  given = config.data.item_vectors
  if given is None:
    return store
  wanted = description.trained_on(workdir / 'checkpoints', description.VECTORS)
  now = vector_files.fingerprint(given)
  if is_given and wanted and now and now != wanted:
    raise vector_files.refuse(
      given,
      f'is not the file that the run in {workdir} was trained with (fingerprint'
      f' {now}, expected {wanted}); give that one, or choose another --workdir',
    )
  folders = [path.parent for path in _places(config, workdir)]
  for folder in folders if wanted else ():
    path = item_vectors.folder_of(str(wanted), str(folder))
    if path.exists():
      return vector_store.attach(store, item_vectors.open_prepared(path))
  if now is None or wanted not in (None, now):
    raise vector_files.refuse(
      given,
      f'the vectors that the run was trained with (fingerprint {wanted}) are'
      f' neither there nor prepared in {folders[0]}; put the file back',
    )
  vectors = item_vectors.open_or_prepare(given, str(folders[0]))
  return vector_store.attach(store, vectors)


def _find(
  config: ml_collections.ConfigDict, workdir: epath.Path
) -> pathlib.Path | None:
  """Returns the store with the run's fingerprint, else the first there is."""
  there = [path for path in _places(config, workdir) if path.exists()]
  wanted = description.trained_on(workdir / 'checkpoints')
  for path in there:
    if history_store.fingerprint_at(path) == wanted:
      return path
  return there[0] if there else None


def _places(
  config: ml_collections.ConfigDict, workdir: epath.Path
) -> list[pathlib.Path]:
  """Returns where the store of a run may lie.

  As given now, where it was, and where it was seen from the workdir.
  """
  saved = json.loads(storage.read(workdir / 'config.json') or b'{}')
  paths = saved.get(_KEY, {})
  folders = [config.data.data_dir]
  if (folder := paths.get('data.data_dir')) is not None:
    folders.insert(0, folder)
    if not storage.is_remote(workdir) and not storage.is_remote(
      paths['workdir']
    ):
      beside = os.path.relpath(folder, paths['workdir'])
      folders.append(os.path.join(workdir, beside))
  log = log_options.of_section(config.data)
  found = []
  for folder in folders:
    path = datasets.store_path(dataclasses.replace(log, data_dir=folder))
    found.append(pathlib.Path(os.path.abspath(path)))
  return list(dict.fromkeys(found))
