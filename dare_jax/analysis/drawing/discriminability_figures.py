"""The figure about discriminability, from its JSON alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import panels as panels_lib

Data = dict[str, Any]
_INPUTS = {'interest': 'interest', 'input': "the head's whole input"}


def _sentence(data: Data) -> str:
  number = data['clusters'][-1]
  said = []
  for name, words in _INPUTS.items():
    at_last = {
      label: model[name]['mi'][-1] for label, model in data['models'].items()
    }
    order = sorted(at_last, key=lambda label: -np.mean(at_last[label]))
    values = [f'{label} {np.mean(at_last[label]):.3f}' for label in order]
    text = (
      f'{number} clusters of {words} tell, in bits: {figure.listed(values)}'
    )
    if len(order) > 1:
      apart = min(at_last[order[0]]) > max(at_last[order[1]])
      text += (
        ' (no seed of the second reaches one of the first)'
        if apart
        else ' (the seeds of the first two overlap)'
      )
    said.append(text)
  return f'{"; ".join(said)}. {data["rows"]:,} test targets were clustered.'


def _panels(data: Data) -> list[panels_lib.Panel]:
  made = []
  units = {'mi': 'mutual information, bits', 'nmi': 'normalised, 0 to 1'}
  for name, words in _INPUTS.items():
    for metric, unit in units.items():
      series = {
        label: model[name][metric] for label, model in data['models'].items()
      }
      made.append(
        panels_lib.Panel(
          f'Clusters of {words}',
          f'{unit}; mean and range of {len(data["seeds"])} seeds',
          _band(data['clusters'], series),
        )
      )
  return made


def _band(clusters: list[int], series: dict[str, Any]) -> Any:
  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    for index, (label, values) in enumerate(series.items()):
      color = panels_lib.color(index)
      low, high = np.min(values, axis=1), np.max(values, axis=1)
      axes.fill_between(clusters, low, high, color=color, alpha=0.2)
      axes.plot(
        clusters,
        np.mean(values, axis=1),
        panels_lib.style(index),
        color=color,
        linewidth=2,
        label=label,
      )
    axes.set_xscale('log')
    axes.set_xticks(clusters, [str(n) for n in clusters])
    axes.minorticks_off()
    axes.set_xlabel('clusters', fontsize=8)
    axes.set_ylim(bottom=0)
    panels_lib.legend(axes)

  return draw


def _tables(data: Data) -> list[figure.Table]:
  columns = ['clusters', *map(str, data['clusters'])]
  return [
    figure.Table(
      f'Mutual information of clusters of {words}, bits, mean over seeds',
      columns,
      [
        [label, *(f'{np.mean(v):.4f}' for v in model[name]['mi'])]
        for label, model in data['models'].items()
      ],
    )
    for name, words in _INPUTS.items()
  ]


FIGURES = (
  figure.Figure(
    'discriminability',
    'Do representations tell clicks from the rest?',
    _sentence,
    _panels,
    _tables,
  ),
)
