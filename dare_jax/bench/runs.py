"""Test AUC of finished runs by fields of their configs: a table, a figure.

    python -m dare_jax.bench runs --runs=DIR [--by=FIELD,..] [--figure=PNG]

Trains nothing. The runs are the folders below DIR that hold a `result.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import json
import pathlib
import statistics
from typing import Any

from absl import flags

from dare_jax import errors
from dare_jax import plots


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  runs = flags.DEFINE_string('runs', None, 'A folder that holds run folders.')
  by = flags.DEFINE_list(
    'by', ['data.history_length'], 'Fields that tell the rows apart.'
  )
  drawn = flags.DEFINE_string(
    'figure', None, 'Draw the AUC by the first field into this PNG.'
  )

  def measure() -> list[dict[str, Any]]:
    if runs.value is None:
      raise errors.UsageError('--runs is missing: expected a folder of runs.')
    rows = table(pathlib.Path(runs.value).expanduser(), by.value)
    if drawn.value is not None:
      draw(rows, by.value[0], pathlib.Path(drawn.value))
    return rows

  return measure


def table(folder: pathlib.Path, fields: Sequence[str]) -> list[dict[str, Any]]:
  """Returns a row for each model and values of `fields`, in their order.

  Args:
    folder: runs lie anywhere in it; those without a result are left out.
    fields: names of config fields, as `section.name`.

  Returns:
    Rows with 'model', the last part of each field's name, 'auc' (the mean over
    the seeds), 'auc_std' (0 for one seed), 'seeds', and 'targets_per_s'. Both
    of AUC are None where a seed has none.

  Raises:
    UsageError: no finished run, an unknown field, a seed that came twice.
  """
  found: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
  for path in sorted(folder.rglob('result.json')):
    result = json.loads(path.read_text())
    config = json.loads((path.parent / 'config.json').read_text())
    for field in fields:
      if field not in config:
        raise errors.UsageError(
          f'--by={field}: {path.parent} has no such field; expected one of its'
          ' config.json.'
        )
    key = (result['model'], *(config[field] for field in fields))
    seeds = found.setdefault(key, {})
    if result['seed'] in seeds:
      raise errors.UsageError(
        f'{path.parent}: seed {result["seed"]} of {key} came twice; tell the'
        ' runs apart by another field of --by, or move one elsewhere.'
      )
    seeds[result['seed']] = result
  if not found:
    raise errors.UsageError(
      f'--runs={folder}: expected runs with a result.json, found none.'
    )
  names = [field.rpartition('.')[2] for field in fields]
  return [
    {'model': key[0], **dict(zip(names, key[1:], strict=True))}
    | _summary([*seeds.values()])
    for key, seeds in sorted(found.items())
  ]


def _summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
  auc = [result['test'].get('auc') for result in results]
  rates = [result['examples_per_s'] for result in results]
  mean = std = None
  if None not in auc:
    mean = statistics.fmean(auc)
    std = statistics.stdev(auc) if len(auc) > 1 else 0.0
  return {
    'auc': mean,
    'auc_std': std,
    'seeds': len(auc),
    'targets_per_s': statistics.fmean(rates),
  }


def draw(
  rows: Sequence[dict[str, Any]], field: str, path: pathlib.Path
) -> None:
  """Draws test AUC against a field, a line for each model.

  Rows without AUC are left out.

  Raises:
    UsageError: matplotlib is missing, the values are not numbers above 0, or no
      row has an AUC.
  """
  plots.require('--figure')
  rows = [row for row in rows if row['auc'] is not None]
  if not rows:
    raise errors.UsageError(
      '--figure: no run has a test AUC: expected labels of both classes.'
    )
  name = field.rpartition('.')[2]
  values = sorted({row[name] for row in rows})
  if not all(isinstance(x, int | float) and x > 0 for x in values):
    raise errors.UsageError(
      f'--figure: {field} is {values}; expected numbers above 0.'
    )
  seeds = [row['seeds'] for row in rows]
  spread = f'mean and standard deviation, {min(seeds)} to {max(seeds)} seeds'
  if min(seeds) == max(seeds):
    spread = spread.replace(f'{min(seeds)} to ', '')
  drawing, (axes,) = plots.panels(7.2, 4.3)
  plots.style_lines(axes, 'Test AUC', spread, name.replace('_', ' '))
  for index, model in enumerate(sorted({row['model'] for row in rows})):
    own = sorted(
      (row for row in rows if row['model'] == model), key=lambda r: r[name]
    )
    above = [
      row['auc'] == max(r['auc'] for r in rows if r[name] == row[name])
      for row in own
    ]
    _line(axes, own, above, name, plots.COLORS[index % len(plots.COLORS)])
  plots.ticks(axes, values)
  axes.margins(x=0.14, y=0.12)
  plots.save(drawing, path)


def _line(
  axes: Any,
  rows: Sequence[dict[str, Any]],
  above: Sequence[bool],
  name: str,
  color: str,
) -> None:
  """Draws a model's line, the last point labelled with its name.

  Each point is labelled with its value: above it where no model is better, so
  that its label is clear of the other lines, else below.
  """
  x, y = [row[name] for row in rows], [row['auc'] for row in rows]
  axes.errorbar(
    x, y, [row['auc_std'] for row in rows], color=color, marker='o',
    markersize=5, linewidth=1.8, capsize=3,
  )  # fmt: skip
  for at, value, up in zip(x, y, above, strict=True):
    axes.annotate(
      f'{value:.4f}', (at, value), xytext=(0, 9 if up else -9), ha='center',
      va='bottom' if up else 'top', textcoords='offset points', fontsize=8,
      color=color,
    )  # fmt: skip
  axes.annotate(
    rows[-1]['model'], (x[-1], y[-1]), xytext=(9, -3), color=color,
    textcoords='offset points', fontsize=10, weight='bold',
  )  # fmt: skip
