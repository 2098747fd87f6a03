"""The figure about the gradients of the roles, from its JSON alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import panels as panels_lib

Data = dict[str, Any]
_PERCENT = 100


def _sentence(data: Data) -> str:
  if not data['models']:
    return (
      'No run has observed its gradients. Train one of a plan that shares'
      ' tables (as model.name=twin) with'
      ' --config.train.observe_gradients=True.'
    )
  return ' '.join(_said(data['first'], *model) for model in _tables_of(data))


def _said(first: int, label: str, name: str, table: Data) -> str:
  """Says what was seen of one table of a run."""
  text = f'{label}, table {name}:'
  if table['ratio'] is not None:
    text += (
      f" the representation's gradient is {table['ratio']:.2f} times as long"
      " as the attention's over the whole training"
    )
  if table['row_ratio_first'] is not None:
    text += (
      f' ({table["row_ratio_first"]:.2f} times by the mean over rows in the'
      f' first {first} steps, for which about 5 are published)'
    )
  of_rows, whole = (
    table['histograms'][kind]['conflict'] for kind in ('row_cosine', 'cosine')
  )
  if of_rows is not None:
    text += (
      f'; by the mean cosine of rows {of_rows * _PERCENT:.1f} % of steps are'
      ' in conflict (nearly two thirds are published for Taobao), by the'
      f" whole table's cosine {whole * _PERCENT:.1f} %"
    )
  categories = table.get('categories')
  if categories and categories['mostly'] is not None:
    text += (
      f'; {categories["mostly"] * _PERCENT:.0f} % of {categories["number"]:,}'
      ' categories are in conflict in most of the steps that read them'
    )
  return f'{text}.'


def _tables_of(data: Data) -> Iterator[tuple[str, str, Data]]:
  """Yields run, name and data of the tables of content."""
  for label, model in data['models'].items():
    for name, table in model['tables'].items():
      if table['popularity']:
        yield label, name, table


def _panels(data: Data) -> list[panels_lib.Panel]:
  made = []
  for label, name, table in _tables_of(data):
    note = f'{label}, {name}'
    made += [
      panels_lib.Panel(
        'Length of the gradient by role', note, _norms(table['series'])
      ),
      panels_lib.Panel(
        'Steps by cosine of the roles',
        f'{note}; below 0 is conflict',
        _cosines(table['histograms']),
      ),
      panels_lib.Panel(
        'Conflict by popularity',
        f'{note}; share of rows and steps below 0',
        _popularity(table['popularity']),
      ),
    ]
  return made


def _norms(series: Data) -> Any:
  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    for index, role in enumerate(('representation', 'attention')):
      axes.plot(
        series['step'],
        series[f'{role}_norm'],
        color=panels_lib.color(index),
        linewidth=2,
        label=role,
      )
    axes.set_yscale('log')
    axes.set_xlabel('step', fontsize=8)
    panels_lib.legend(axes)

  return draw


def _cosines(histograms: Data) -> Any:
  names = {'row_cosine': 'mean of rows', 'cosine': 'whole table'}

  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    for index, (kind, words) in enumerate(names.items()):
      counts = histograms[kind]['counts']
      edges = np.linspace(-1, 1, len(counts) + 1)
      axes.stairs(
        counts,
        edges,
        color=panels_lib.color(index),
        fill=not index,
        alpha=0.6 if not index else 1.0,
        linewidth=2,
        label=words,
      )
    axes.axvline(0, color=panels_lib.QUIET, linewidth=1)
    axes.set_xlabel('cosine', fontsize=8)
    axes.set_ylabel('steps', fontsize=8)
    panels_lib.legend(axes)

  return draw


def _popularity(groups: list[Data]) -> Any:
  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    color = panels_lib.color(0)
    axes.plot(
      [group['from'] for group in groups],
      [group['conflict'] for group in groups],
      'o-',
      color=color,
      markersize=4,
    )
    axes.set_xscale('log')
    axes.axhline(0.5, color=panels_lib.QUIET, linewidth=1)
    axes.set_ylim(0, 1)
    axes.set_xlabel('occurrences in the log, from', fontsize=8)

  return draw


def _tables(data: Data) -> list[figure.Table]:
  made = []
  for label, name, table in _tables_of(data):
    rows = [
      [
        f'from {group["from"]:,}',
        f'{group["steps"]:,.0f}',
        f'{group["conflict"]:.3f}',
        figure.number(group['ratio'], 2),
      ]
      for group in table['popularity']
    ]
    columns = ['occurrences', 'rows x steps', 'in conflict', 'ratio of lengths']
    made.append(figure.Table(f'{label}, {name}, by popularity', columns, rows))
    if categories := table.get('categories'):
      rows = [
        [
          of['name'],
          f'{of["events"]:,}',
          f'{of["conflict"]:.3f}',
          figure.number(of['ratio'], 2),
        ]
        for of in categories['frequent']
      ]
      columns = ['category', 'events', 'steps in conflict', 'ratio of lengths']
      title = f'{label}, {name}, the most frequent categories'
      made.append(figure.Table(title, columns, rows))
  return made


FIGURES = (
  figure.Figure(
    'gradients',
    'Domination and conflict of gradients',
    _sentence,
    _panels,
    _tables,
  ),
)
