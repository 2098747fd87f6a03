"""The figures about slices, from their JSON alone."""

from __future__ import annotations

from typing import Any

from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import panels as panels_lib

Data = dict[str, Any]


def _auc_sentence(data: Data) -> str:
  best = None
  for part in data['slices']:
    for label, estimates in part['models'].items():
      known = [
        (estimate['mean'], name)
        for name, estimate in zip(part['names'], estimates, strict=True)
        if estimate is not None
      ]
      if len(known) < 2:
        continue
      low, high = min(known), max(known)
      found = (high[0] - low[0], label, part['title'], low, high)
      best = found if best is None else max(best, found)
  if best is None:
    return 'No slice holds enough targets of both labels to compare.'
  _, label, title, low, high = best
  text = (
    f'AUC changes most with {title}: for {label} from {low[0]:.4f}'
    f' ({low[1]}) to {high[0]:.4f} ({high[1]}).'
  )
  return f'{text} {_difference(data)}'.rstrip()


def _difference(data: Data) -> str:
  """Says in how many slices a run is ahead of the first, or behind it."""
  base = next(iter(data['slices'][0]['models']))
  said = []
  for label in data['slices'][0]['difference']:
    estimates = [
      estimate
      for part in data['slices']
      for estimate in part['difference'][label]
      if estimate is not None
    ]
    ahead = sum(estimate['low'] > 0 for estimate in estimates)
    behind = sum(estimate['high'] < 0 for estimate in estimates)
    said.append(f'{label} is ahead in {ahead} and behind in {behind}')
  if not said:
    return ''
  return (
    f'Of {len(estimates)} slices, by paired 95 % intervals over users against'
    f' {base}: {figure.listed(said)}.'
  )


def _auc_panels(data: Data) -> list[panels_lib.Panel]:
  return [
    panels_lib.Panel(
      f'AUC by {part["title"]}',
      '95 % intervals over users',
      panels_lib.intervals(_rows(part), part['models']),
    )
    for part in data['slices']
    if part['names']
  ]


def _rows(part: Data) -> list[str]:
  return [
    f'{name}\n({moments:,})'
    for name, moments in zip(part['names'], part['moments'], strict=True)
  ]


def _auc_tables(data: Data) -> list[figure.Table]:
  rows = []
  for part in data['slices']:
    for index, name in enumerate(part['names']):
      cells = [
        figure.estimate(estimates[index], 4)
        for estimates in part['models'].values()
      ]
      moments = f'{part["moments"][index]:,}'
      rows.append([f'{part["title"]}: {name}', moments, *cells])
  labels = [*data['slices'][0]['models']]
  return [figure.Table('Test AUC', ['slice', 'moments', *labels], rows)]


def _calibration_sentence(data: Data) -> str:
  worst = None
  for part in data['slices']:
    for label, ratios in part['models'].items():
      for name, ratio in zip(part['names'], ratios, strict=True):
        if ratio is None:
          continue
        far = max(ratio, 1 / ratio) if ratio else float('inf')
        found = (far, ratio, label, part['title'], name)
        worst = found if worst is None else max(worst, found)
  gaps = []
  for label, curve in data['curves'].items():
    gap = max(
      abs(predicted - observed['mean'])
      for predicted, observed in zip(
        curve['predicted'], curve['observed'], strict=True
      )
    )
    gaps.append(f'{label} {gap:.3f}')
  text = (
    'By tenths of the predicted probability, predicted and observed rates lie'
    f' apart by at most: {figure.listed(gaps)}.'
  )
  if worst is None:
    return text
  _, ratio, label, title, name = worst
  return (
    f'{text} Of all slices calibration is worst by {title}, {name}:'
    f' {label} predicts {ratio:.2f} times the clicks that there are.'
  )


def _calibration_panels(data: Data) -> list[panels_lib.Panel]:
  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    axes.plot([0, 1], [0, 1], color=panels_lib.QUIET, linewidth=1)
    for index, (label, curve) in enumerate(data['curves'].items()):
      color = panels_lib.color(index)
      low, high = ([o[k] for o in curve['observed']] for k in ('low', 'high'))
      mean = [o['mean'] for o in curve['observed']]
      axes.fill_between(curve['predicted'], low, high, color=color, alpha=0.2)
      axes.plot(
        curve['predicted'], mean, 'o-', color=color, markersize=4, label=label
      )
    axes.set_xlabel('predicted', fontsize=8)
    axes.set_ylabel('observed', fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    panels_lib.legend(axes)

  made = [
    panels_lib.Panel(
      'Calibration', 'tenths by predicted probability; 95 % intervals', draw
    )
  ]
  for part in data['slices']:
    if part['names']:
      made.append(
        panels_lib.Panel(
          f'By {part["title"]}',
          'predicted clicks over clicks',
          panels_lib.intervals(
            part['names'],
            {
              label: [_point(ratio) for ratio in ratios]
              for label, ratios in part['models'].items()
            },
          ),
        )
      )
  return made


def _point(value: float | None) -> dict[str, float] | None:
  if value is None:
    return None
  return dict.fromkeys(('mean', 'low', 'high'), value)


def _ratio_tables(data: Data) -> list[figure.Table]:
  labels = [*data['curves']]
  rows = [
    [
      f'{part["title"]}: {name}',
      *(figure.number(part['models'][label][index]) for label in labels),
    ]
    for part in data['slices']
    for index, name in enumerate(part['names'])
  ]
  title = 'Predicted clicks over clicks'
  return [figure.Table(title, ['slice', *labels], rows)]


FIGURES = (
  figure.Figure(
    'slices',
    'AUC by history and slice',
    _auc_sentence,
    _auc_panels,
    _auc_tables,
  ),
  figure.Figure(
    'calibration',
    'Calibration',
    _calibration_sentence,
    _calibration_panels,
    _ratio_tables,
  ),
)
