"""Draws the search benchmark: time by attention dimension and by length."""

from __future__ import annotations

from collections.abc import Collection
import itertools
import json
import pathlib
from typing import Any

from dare_jax import errors
from dare_jax import plots

_NEEDED = ('attention_dim', 'representation_dim', 'model', 'auc')


def read_auc(path: str) -> list[dict[str, Any]]:
  """Returns the rows of a file of test AUC by dimensions.

  Raises:
    UsageError: no such file, or rows without the fields that are drawn.
  """
  try:
    found = json.loads(pathlib.Path(path).read_text())
  except (OSError, ValueError) as error:
    raise errors.UsageError(f'--auc={path}: {error}.') from None
  rows: Any = found.get('rows') if isinstance(found, dict) else found
  good = isinstance(rows, list) and all(
    isinstance(row, dict) and all(name in row for name in _NEEDED)
    for row in rows
  )
  if not good:
    raise errors.UsageError(
      f'--auc={path}: expected rows with {", ".join(_NEEDED)}.'
    )
  return rows


def draw(
  rows: list[dict[str, Any]],
  output: pathlib.Path,
  quality: list[dict[str, Any]],
) -> None:
  """Draws time by dimension and by length and, beside it, AUC by dimension.

  Args:
    rows: the rows of `bench search`.
    output: the PNG file to write.
    quality: the rows of `read_auc`; empty: the panel of AUC is left out.
  """
  count = 3 if quality else 2
  drawing, panels = plots.panels(4.4 * count, 4.2, count)
  for axes, size, x in (
    (panels[0], 'dim', 'attention dimension'),
    (panels[1], 'length', 'behaviors of a history'),
  ):
    plots.style_lines(axes, 'Search of one user', 'microseconds', x)
    lines = _lines(rows, size)
    for color, (name, line) in zip(_colors(lines), lines.items(), strict=True):
      places, values = zip(*sorted(line), strict=True)
      axes.plot(places, values, marker='o', color=color, label=name)
    axes.set_yscale('log')
    plots.ticks(axes, sorted({row[size] for row in rows}))
  # Colors are the same in both.
  panels[1].legend(loc='upper left', frameon=False, fontsize=8.5)
  if quality:
    _draw_quality(panels[2], quality)
  plots.save(drawing, output)


def _colors(names: Collection[str]) -> list[str]:
  return list(itertools.islice(itertools.cycle(plots.COLORS), len(names)))


def _lines(
  rows: list[dict[str, Any]], size: str
) -> dict[str, list[tuple[int, float]]]:
  """Returns microseconds a user by size; other sizes as in the first row."""
  lines: dict[str, list[tuple[int, float]]] = {}
  for row in rows:
    same = all(
      row[name] == rows[0][name]
      for name in ('length', 'dim', 'candidates')
      if name != size
    )
    if same:
      name = f'{row["method"]}, {row["precision"]}'
      time_us = row['search_s'] / row['users'] * 1e6
      lines.setdefault(name, []).append((row[size], time_us))
  return lines


def _draw_quality(axes: Any, rows: list[dict[str, Any]]) -> None:
  """Draws AUC by attention dimension, each at its widest representation."""
  note = 'each at its widest representation'
  plots.style_lines(axes, 'Test AUC', note, 'attention dimension')
  models = sorted({row['model'] for row in rows})
  for color, model in zip(_colors(models), models, strict=True):
    of_model = [row for row in rows if row['model'] == model]
    widest = {}
    for row in sorted(of_model, key=lambda row: row['representation_dim']):
      widest[row['attention_dim']] = row['auc']
    places, values = zip(*sorted(widest.items()), strict=True)
    axes.plot(places, values, marker='o', color=color, label=model)
  plots.ticks(axes, sorted({row['attention_dim'] for row in rows}))
  axes.legend(loc='lower right', frameon=False, fontsize=8.5)
