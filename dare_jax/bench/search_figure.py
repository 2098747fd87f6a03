"""Draws the search benchmark: time by attention dimension and by length."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from dare_jax import errors

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
  rows: list[dict[str, Any]], output: pathlib.Path, auc: str | None
) -> None:
  """Writes two panels: time (and AUC) by dimension, time by length.

  Raises:
    UsageError: matplotlib is missing, or the file of AUC is wrong.
  """
  quality = read_auc(auc) if auc else []
  try:
    import matplotlib
  except ImportError:
    raise errors.UsageError(
      "--figure: it needs matplotlib (pip install -e '.[figures]' in"
      ' the checkout).'
    ) from None
  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
  for axes, size, label in (
    (left, 'dim', 'attention dimension'),
    (right, 'length', 'behaviors of a history'),
  ):
    for name, line in _lines(rows, size).items():
      x, y = zip(*sorted(line), strict=True)
      axes.plot(x, y, marker='o', label=name)
    axes.set(xscale='log', yscale='log', xlabel=label)
    axes.set_ylabel('search of one user, microseconds')
    sizes = sorted({row[size] for row in rows})
    short = lambda value: f'{value // 1000}k' if value >= 1000 else str(value)
    axes.set_xticks(sizes, [short(value) for value in sizes])
    axes.minorticks_off()
  right.legend(loc='upper left')  # Colors are the same in both.
  _draw_quality(left.twinx() if quality else None, quality)
  figure.tight_layout()
  figure.savefig(output, dpi=120)
  pyplot.close(figure)


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
  models = sorted({row['model'] for row in rows})
  for number, model in enumerate(models):
    of_model = [row for row in rows if row['model'] == model]
    widest = {}
    for row in sorted(of_model, key=lambda row: row['representation_dim']):
      widest[row['attention_dim']] = row['auc']
    points = sorted(widest.items())
    x, y = zip(*points, strict=True)
    # Greys: the colors are of the searches.
    look = {'linestyle': '--', 'marker': 's', 'color': str(number / 2 % 1)}
    axes.plot(x, y, label=f'{model}, test AUC', **look)
  if rows:
    axes.set_ylabel('test AUC (dashed)')
    axes.legend(loc='lower right')
