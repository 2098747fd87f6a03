"""The figure about how much history is seen and kept, from its JSON alone."""

from __future__ import annotations

from typing import Any

from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import panels as panels_lib

Data = dict[str, Any]
_TITLES = {'length': 'length of the history', 'kept': 'behaviors kept, k'}


def _sentence(data: Data) -> str:
  said = []
  for label, of in data['models'].items():
    parts = [
      text
      for name, words in (('length', 'behaviors'), ('kept', 'kept'))
      if (text := _change(of[name], words))
    ]
    if parts:
      said.append(f'{label}: {"; ".join(parts)}')
  text = f'{". ".join(said)}. ' if said else ''
  share = ''
  if data['moments'] < data['of_moments']:
    share = f' of {data["of_moments"]:,}, by users drawn at random'
  return (
    f'{text}Trained checkpoints on {data["moments"]:,} test moments{share};'
    ' nothing was trained anew.'
  )


def _change(of: Data, words: str) -> str:
  """Says how the first setting compares with the run's own."""
  number, difference = of['number'], of['difference']
  known = [
    (n, d, a)
    for n, d, a in zip(number, difference, of['auc'], strict=True)
    if d is not None
  ]
  if len(known) < 2:
    return ''
  best = max(known, key=lambda item: item[2])
  first, change, _ = known[0]
  return (
    f'AUC with {first} {words} is {change["mean"]:+.4f}'
    f' ({change["low"]:+.4f} to {change["high"]:+.4f}) against its own setting,'
    f' and highest with {best[0]} ({best[2]:.4f})'
  )


def _panels(data: Data) -> list[panels_lib.Panel]:
  made = []
  for name, words in _TITLES.items():
    series = {
      label: of[name]
      for label, of in data['models'].items()
      if of[name]['number']
    }
    if series:
      made.append(
        panels_lib.Panel(
          f'Test AUC by {words}', 'one checkpoint each', _lines(series, words)
        )
      )
  return made


def _lines(series: Data, words: str) -> Any:
  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    for index, (label, of) in enumerate(series.items()):
      axes.plot(
        of['number'],
        of['auc'],
        f'o{panels_lib.style(index)}',
        color=panels_lib.color(index),
        linewidth=2,
        markersize=4,
        label=label,
      )
    longest = max((of['number'] for of in series.values()), key=len)
    axes.set_xscale('log')
    axes.set_xticks(longest, [f'{n:,}' for n in longest])
    axes.minorticks_off()
    axes.set_xlabel(words, fontsize=8)
    panels_lib.legend(axes)

  return draw


def _tables(data: Data) -> list[figure.Table]:
  made = []
  for name, words in _TITLES.items():
    numbers = sorted(
      {n for of in data['models'].values() for n in of[name]['number']}
    )
    if not numbers:
      continue
    rows = []
    for label, of in data['models'].items():
      by_number = dict(zip(of[name]['number'], of[name]['auc'], strict=True))
      cells = [figure.number(by_number.get(n), 4) for n in numbers]
      rows.append([label, *cells])
    columns = ['run', *(f'{n:,}' for n in numbers)]
    made.append(figure.Table(f'Test AUC by {words}', columns, rows))
  return made


FIGURES = (
  figure.Figure(
    'history',
    'How much history it takes',
    _sentence,
    _panels,
    _tables,
  ),
)
