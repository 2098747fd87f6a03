"""The config of a run as its folder keeps it: written, read, compared."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from etils import epath
import jax
import ml_collections

from dare_jax import errors
from dare_jax import storage
from dare_jax.configs import base
from dare_jax.experiments import run_data

# Fields that a resumed run may change, as prefixes.
_FREE_FIELDS = (
  'train.epochs',
  'train.steps',
  'train.log_every_steps',
  'optim.table_layout',
  'eval.',
  'checkpoint.',
  'data.data_dir',
)
# What runs did whose config has not the field yet, where it is not the default.
_OLDER = {'model.norm_momentum': 0.9}


def digest(config: ml_collections.ConfigDict) -> str:
  """Returns a hash of the whole resolved config."""
  text = json.dumps(flatten(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the fields as `section.name` -> JSON value."""
  plain = json.loads(json.dumps(config.to_dict(), default=list))
  return {
    '.'.join(key.key for key in path): value
    for path, value in jax.tree_util.tree_leaves_with_path(
      plain, is_leaf=lambda node: not isinstance(node, dict)
    )
  }


def kind_of(config: ml_collections.ConfigDict, name: str) -> type:
  """Returns the type that a field's values have.

  Args:
    config: the config.
    name: the field, as `section.name`.
  """
  *sections, own = name.split('.')
  for section in sections:
    config = config[section]
  return config.get_type(own)


def load(workdir: epath.PathLike) -> ml_collections.ConfigDict:
  """Returns the config of the run in a workdir.

  Raises:
    UsageError: no run there, or one of another version's config fields.
  """
  path = storage.locate(workdir) / 'config.json'
  if storage.read(path) is None:
    raise errors.UsageError(
      f'--workdir={workdir}: no run there (config.json is missing).'
    )
  config = base.get_config()
  saved = _OLDER | run_data.without_paths(_read_config(path))
  known = flatten(config)
  for field, value in saved.items():
    if field not in known:
      raise errors.UsageError(
        f'{path}: the field {field} is unknown to this version of dare_jax;'
        ' use the version that trained the run.'
      )
    value = tuple(value) if isinstance(value, list) else value
    config.update_from_flattened_dict({field: value})
  return config


def _read_config(path: epath.Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text())
  except ValueError:
    raise errors.UsageError(
      f'{path} is not readable; restore it, or choose another workdir.'
    ) from None


def content(
  config: ml_collections.ConfigDict, workdir: epath.Path
) -> dict[str, Any]:
  """Returns what a run's config.json holds."""
  return run_data.with_paths(flatten(config), workdir)


def check_same_run(config: ml_collections.ConfigDict, path: epath.Path) -> None:
  """Refuses to go on in a workdir whose run had another config.

  A path may be given in another way. Where the data lies may change: which data
  it is, checkpoints know. A field that the run did not know yet had its
  default, or that of `_OLDER`.

  Raises:
    UsageError: names the first field that differs.
  """
  saved = flatten(base.get_config()) | _OLDER | _read_config(path)
  now = flatten(config)
  for field in sorted(run_data.without_paths({**saved, **now})):
    if field.startswith(_FREE_FIELDS):
      continue
    value = now.get(field)
    is_same = run_data.is_same_place(field, saved, value)
    if saved.get(field) != value and not is_same:
      raise errors.UsageError(
        f'{field}={now.get(field)}, but the run in {path.parent} has'
        f' {field}={saved.get(field)}; choose another --workdir, or the same'
        ' config. Only run length, logging, evaluation and checkpoint'
        ' periods and optim.table_layout may differ.'
      )
