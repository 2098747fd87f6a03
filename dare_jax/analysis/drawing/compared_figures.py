"""The figure of runs beside each other, from its JSON alone."""

from __future__ import annotations

from typing import Any

from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import panels as panels_lib

Data = dict[str, Any]
_ALL = 'all'
_TITLES = {
  'auc': 'AUC',
  'gauc': 'GAUC by user',
  'category_gauc': 'GAUC by category',
  'logloss': 'logloss',
  'accuracy': 'accuracy',
  'calibration': 'calibration',
}


def _sentence(data: Data) -> str:
  rows = [row for row in data['rows'] if 'auc' in row['metrics']]
  if not rows:
    return 'The test split has no targets of both labels.'
  order = sorted(rows, key=lambda row: -row['metrics']['auc']['mean'])
  values = [
    f'{row["model"]} {row["metrics"]["auc"]["mean"]:.4f}' for row in order
  ]
  text = (
    f'Test AUC over {data["targets"][_ALL]:,} targets: {figure.listed(values)}.'
  )
  said = []
  for row in data['rows'][1:]:
    change = row['slices'][_ALL]['difference']
    if change is not None:
      is_apart = change['low'] > 0 or change['high'] < 0
      said.append(
        f'{row["model"]} {change["mean"]:+.4f} ({change["low"]:+.4f} to'
        f' {change["high"]:+.4f}, {"more" if is_apart else "no more"} than'
        ' chance in the choice of users)'
      )
  if not said:
    return text
  return f'{text} Against {data["base"]}, paired: {figure.listed(said)}.'


def _panels(data: Data) -> list[panels_lib.Panel]:
  names = [*data['targets']]
  shown: dict[str, Any] = {
    row['model']: [row['slices'][name]['difference'] for name in names]
    for row in data['rows']  # The first, without any, keeps its color.
  }
  if not any(any(values) for values in shown.values()):
    return []
  rows = [f'{name}\n({data["targets"][name]:,})' for name in names]
  intervals = panels_lib.intervals(rows, shown)

  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    axes.axvline(0, color=panels_lib.QUIET, linewidth=1)
    intervals(axes)

  return [
    panels_lib.Panel(
      f'AUC minus that of {data["base"]}',
      '95 % intervals over users; all and by slice',
      draw,
    )
  ]


def _tables(data: Data) -> list[figure.Table]:
  known = [
    name
    for name in _TITLES
    if any(name in row['metrics'] for row in data['rows'])
  ]
  rows = [
    [
      row['model'],
      str(len(row['seeds'])),
      *(_spread(row['metrics'].get(name)) for name in known),
      _change(row['slices'][_ALL]['difference']),
    ]
    for row in data['rows']
  ]
  columns = [
    'model', 'seeds', *(_TITLES[name] for name in known),
    f'AUC minus that of {data["base"]}',
  ]  # fmt: skip
  made = [figure.Table('Mean ± deviation over seeds, test', columns, rows)]
  names = [name for name in data['targets'] if name != _ALL]
  rows = [
    [row['model'], *(_slice(row['slices'][name]) for name in names)]
    for row in data['rows']
  ]
  title = f'AUC by slice, and minus that of {data["base"]}'
  return [*made, figure.Table(title, ['model', *names], rows)]


def _spread(value: Data | None) -> str:
  if value is None:
    return '–'
  text = f'{value["mean"]:.4f}'
  return text if value['std'] is None else f'{text} ± {value["std"]:.4f}'


def _change(value: Data | None) -> str:
  if value is None:
    return '–'
  return f'{value["mean"]:+.4f} ({value["low"]:+.4f} to {value["high"]:+.4f})'


def _slice(value: Data) -> str:
  text = figure.number(value['auc'], 4)
  if value['difference'] is None:
    return text
  return f'{text}; {_change(value["difference"])}'


FIGURES = (
  figure.Figure('compared', 'Beside each other', _sentence, _panels, _tables),
)
