"""`comparison.png`: AUC of each model, and its difference to the base."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from dare_jax import errors
from dare_jax import plots

MISSING = (
  'comparison.png is left out: it needs matplotlib;'
  f' {errors.install("figures")}, and the same command again will draw it'
)
_BASE, _BETTER, _WORSE = plots.QUIET, plots.BLUE, plots.ORANGE


def draw(table: Mapping[str, Any], path: pathlib.Path) -> bool:
  """Draws the models that have an AUC, the best at the top.

  Args:
    table: what `table.json` holds.
    path: the PNG file to write.

  Returns:
    Whether there was something to draw, and something to draw it with.
  """
  rows = [row for row in table['rows'] if 'auc' in row]
  if not rows or not plots.can_draw():
    return False
  rows.sort(key=lambda row: row['auc']['mean'])
  has_differences = any('auc_difference' in row for row in rows)
  drawing, panels = plots.panels(
    9.0, 1.5 + 0.42 * len(rows), 2 if has_differences else 1, sharey=True
  )
  seeds = max(row['seeds'] for row in rows)
  plots.style_rows(panels[0], 'Test AUC', _spread_note(seeds))
  _draw_auc(panels[0], rows, table['base'])
  if has_differences:
    note = '95 % interval, paired, over test users; grey: contains 0'
    plots.style_rows(panels[1], f'Difference to {table["base"]}', note)
    _draw_differences(panels[1], rows, table['base'])
  panels[0].set_yticks(range(len(rows)), [row['model'] for row in rows])
  panels[0].set_ylim(-0.6, len(rows) - 0.4)
  for label, row in zip(panels[0].get_yticklabels(), rows, strict=True):
    label.set_color(plots.QUIET if row['model'] == table['base'] else plots.INK)
  plots.save(drawing, path)
  return True


def _spread_note(seeds: int) -> str:
  if seeds == 1:
    return 'one seed'
  return f'mean and standard deviation over {seeds} seeds'


def _draw_auc(axes: Any, rows: list[Any], base: str) -> None:
  for height, row in enumerate(rows):
    color = _color(row, base)
    mean, std = row['auc']['mean'], row['auc']['std']
    if std is not None:
      axes.plot(
        [mean - std, mean + std], [height] * 2, color=color, linewidth=2.2,
        alpha=0.45, solid_capstyle='round',
      )  # fmt: skip
    axes.plot(mean, height, 'o', color=color, markersize=6.5)
    plots.label(axes, mean, height, f'{mean:.4f}')
  axes.margins(x=0.12)


def _draw_differences(axes: Any, rows: list[Any], base: str) -> None:
  axes.axvline(0, color=plots.QUIET, linewidth=1.2)
  for height, row in enumerate(rows):
    if (found := row.get('auc_difference')) is None:
      continue
    color = _color(row, base)
    axes.plot(
      [found['low'], found['high']], [height] * 2, color=color,
      linewidth=2.2, solid_capstyle='round',
    )  # fmt: skip
    axes.plot(found['mean'], height, 'o', color=color, markersize=6.5)
    text = f'{found["mean"]:+.4f}'.replace('-', '\u2212')
    plots.label(axes, found['mean'], height, text)
  axes.margins(x=0.12)


def _color(row: Any, base: str) -> str:
  """Blue or orange where the interval leaves 0 out, else grey."""
  found = row.get('auc_difference')
  if row['model'] == base or found is None:
    return _BASE
  if found['low'] > 0:
    return _BETTER
  return _WORSE if found['high'] < 0 else _BASE
