"""Where one model leads others: several comparisons in one table and figure.

    python -m dare_jax.bench lead --comparisons=DIR,DIR,... [--models=twin,..]
                                  [--figure=FILE]

reads what `python -m dare_jax.compare` has left in each DIR, and tells the AUC
of the base minus that of each other model against the training moments of an
item: how often, on average, a positive moves an item's row in one epoch.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import pathlib
from typing import Any

from absl import flags

from dare_jax import errors
from dare_jax import plots
from dare_jax.bench import lead_figure


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  folders = flags.DEFINE_list('comparisons', None, 'Folders of comparisons.')
  models = flags.DEFINE_list(
    'models', None, 'Models to compare with the base; default: all.'
  )
  figure = flags.DEFINE_string('figure', None, 'Draw the leads as this PNG.')

  def measure() -> list[dict[str, Any]]:
    """Returns the rows of all comparisons, and draws them where asked."""
    if not folders.value:
      raise errors.UsageError(
        '--comparisons: expected folders of `python -m dare_jax.compare`,'
        ' separated by commas.'
      )
    if figure.value:
      plots.require('--figure')
    rows = [
      row
      for folder in folders.value
      for row in rows_of(pathlib.Path(folder), models.value)
    ]
    if not rows:
      raise errors.UsageError(
        f'--comparisons={",".join(folders.value)}: no finished model beside'
        ' the base there; run `python -m dare_jax.compare` to its end, or name'
        ' other --models.'
      )
    if figure.value:
      lead_figure.draw(rows, pathlib.Path(figure.value))
    return rows

  return measure


def rows_of(
  folder: pathlib.Path, models: list[str] | None = None
) -> list[dict[str, Any]]:
  """Returns a row for each model of a comparison but its base.

  Args:
    folder: the output folder of a comparison.
    models: labels of the models to tell; None: all.

  Raises:
    UsageError: no comparison there, or its base has no finished run.
  """
  try:
    table = json.loads((folder / 'table.json').read_text())
  except (OSError, ValueError):
    raise errors.UsageError(
      f'--comparisons: {folder} holds no table.json that can be read; expected'
      ' the --output of `python -m dare_jax.compare`.'
    ) from None
  by_name = {row['model']: row for row in table['rows']}
  base = by_name[table['base']]
  if 'auc' not in base:
    raise errors.UsageError(
      f'--comparisons: {folder}: its base {table["base"]} has no finished run.'
    )
  of_data = _data(folder / 'runs', table['base'])
  rows = []
  for name, row in by_name.items():
    if 'auc_difference' not in row or (models and name not in models):
      continue
    found = row['auc_difference']
    rows.append(
      {
        'comparison': folder.name,
        **of_data,
        'model': name,
        'seeds': row['seeds'],
        'auc': row['auc']['mean'],
        'base_auc': base['auc']['mean'],
        'lead': -found['mean'],
        'lead_low': -found['high'],
        'lead_high': -found['low'],
        'lead_item_seen': _difference(base, row, 'auc_item_seen'),
        'lead_item_unseen': _difference(base, row, 'auc_item_unseen'),
        'logloss': row['logloss']['mean'],
        'base_logloss': base['logloss']['mean'],
      }
    )
  return rows


def _difference(base: Any, row: Any, name: str) -> float | None:
  if name not in base or name not in row:
    return None
  return base[name]['mean'] - row[name]['mean']


def _data(runs: pathlib.Path, base: str) -> dict[str, Any]:
  """Returns what a comparison's runs were trained on, and for how long."""
  from dare_jax.experiments import experiment
  from dare_jax.experiments import run_config
  from dare_jax.experiments import run_data

  workdir = next(
    path for path in sorted(runs.glob(f'{base}-*')) if path.is_dir()
  )
  config = run_config.load(workdir)
  loaded = experiment.load(config, lambda: run_data.open_store(config, workdir))
  moments = len(loaded.pipelines['train'].moments)
  items = loaded.store.vocab_sizes['item']
  return {
    'log': config.data.name,
    'moments': moments,
    'items': items,
    'moments_an_item': moments / items,
    'epochs': loaded.total_steps / loaded.steps_per_epoch,
    'history_length': config.data.history_length,
  }
