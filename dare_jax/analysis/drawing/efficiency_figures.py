"""The figure about cost and speed of learning, from its JSON alone."""

from __future__ import annotations

from typing import Any

from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import panels as panels_lib

Data = dict[str, Any]
_CURVES = {
  'val/auc': 'Validation AUC',
  'train/loss': 'Training loss',
}


def _sentence(data: Data) -> str:
  models = data['models']
  known = {k: v for k, v in models.items() if v['auc'] is not None}
  text = ''
  if known:
    best = max(known, key=lambda label: known[label]['auc'])
    fast = min(models, key=lambda label: models[label]['search_us'])
    text = (
      f'{best} has the highest test AUC, {known[best]["auc"]:.4f}, at'
      f' {known[best]["search_us"]:.1f} µs of search for a target and'
      f' {known[best]["attention_dim"]} attention dimensions; {fast} searches'
      f' fastest, {models[fast]["search_us"]:.1f} µs. '
    )
  at = {k: v['reached'] for k, v in models.items() if v['reached']}
  if at:
    said = [
      f'{label} at step {of["step"]:,} ({of["time_s"]:,.0f} s)'
      for label, of in sorted(at.items(), key=lambda item: item[1]['step'])
    ]
    text += (
      f'The validation AUC that all reach, {data["threshold"]:.4f}, is reached'
      f' by {figure.listed(said)}.'
    )
  else:
    text += 'The runs have no validation AUC in common yet.'
  return f'{text} Times are of the machine that ran the analysis or training.'


def _panels(data: Data) -> list[panels_lib.Panel]:
  made = [
    panels_lib.Panel(
      'Test AUC by attention dimensions',
      'of item, category and further fields together',
      _points(data['models'], 'attention_dim', 'attention dimensions'),
    ),
    panels_lib.Panel(
      'Test AUC by search time',
      f'of one target, {data["length"]:,} behaviors, keys ready',
      _points(data['models'], 'search_us', 'microseconds'),
    ),
  ]
  for name, title in _CURVES.items():
    for unit, words in (('step', 'steps'), ('time_s', 'seconds of training')):
      if any(name in of['curves'] for of in data['models'].values()):
        made.append(
          panels_lib.Panel(
            title, f'against {words}', _curves(data['models'], name, unit)
          )
        )
  return made


def _points(models: Data, x: str, words: str) -> Any:
  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    for index, (label, of) in enumerate(models.items()):
      if of['auc'] is None:
        continue
      axes.plot(
        of[x], of['auc'], 'o', color=panels_lib.color(index), label=label
      )
    axes.set_xlabel(words, fontsize=8)
    axes.set_xlim(left=0)
    axes.margins(y=0.2)
    panels_lib.legend(axes)

  return draw


def _curves(models: Data, name: str, unit: str) -> Any:
  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    for index, (label, of) in enumerate(models.items()):
      if name not in of['curves']:
        continue
      axes.plot(
        of['curves'][name][unit],
        of['curves'][name]['value'],
        panels_lib.style(index),
        color=panels_lib.color(index),
        linewidth=2,
        label=label,
      )
    axes.set_xlabel({'step': 'step', 'time_s': 'seconds'}[unit], fontsize=8)
    panels_lib.legend(axes)

  return draw


def _tables(data: Data) -> list[figure.Table]:
  columns = [
    'run', 'test AUC', 'search, µs a target', 'attention dims',
    'representation dims', 'attention tables', 'representation tables',
    'other', 'training, s', 'step at threshold', 'seconds at threshold',
  ]  # fmt: skip
  rows = []
  for label, of in data['models'].items():
    at = of['reached'] or {}
    seconds = of['train_time_s']
    rows.append(
      [
        label,
        figure.number(of['auc'], 4),
        f'{of["search_us"]:.1f}',
        str(of['attention_dim']),
        str(of['representation_dim']),
        *(f'{of["parameters"][role]:,}' for role in of['parameters']),
        '–' if seconds is None else f'{seconds:,.0f}',
        f'{at["step"]:,}' if at else '–',
        f'{at["time_s"]:,.0f}' if at else '–',
      ]
    )
  return [figure.Table('Cost; tables in parameters', columns, rows)]


FIGURES = (
  figure.Figure(
    'efficiency',
    'What it costs, and how fast it learns',
    _sentence,
    _panels,
    _tables,
  ),
)
