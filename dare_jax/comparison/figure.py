"""`comparison.png`: AUC of each model, and its difference to the base."""

from __future__ import annotations

from collections.abc import Mapping
import importlib.util
import pathlib
from typing import Any

from dare_jax import errors

MISSING = (
  'comparison.png is left out: it needs matplotlib;'
  f' {errors.install("figures")}, and the same command again will draw it'
)
_INK, _QUIET, _RULE = '#1f2933', '#7b8794', '#e4e7eb'
_BASE, _BETTER, _WORSE = '#7b8794', '#1f6fb4', '#c2571a'


def can_draw() -> bool:
  """Is matplotlib installed?"""
  return importlib.util.find_spec('matplotlib') is not None


def draw(table: Mapping[str, Any], path: pathlib.Path) -> bool:
  """Draws the models that have an AUC, the best at the top.

  Args:
    table: what `table.json` holds.
    path: of the PNG.

  Returns:
    Whether there was something to draw, and something to draw it with.
  """
  rows = [row for row in table['rows'] if 'auc' in row]
  if not rows or not can_draw():
    return False
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  rows.sort(key=lambda row: row['auc']['mean'])
  has_differences = any('auc_difference' in row for row in rows)
  height = 1.5 + 0.42 * len(rows)
  made = figure.Figure(figsize=(9.0, height), dpi=160, facecolor='white')
  backend_agg.FigureCanvasAgg(made)
  panels = made.subplots(
    1, 2 if has_differences else 1, sharey=True, squeeze=False
  )[0]
  seeds = max(row['seeds'] for row in rows)
  _style(panels[0], 'Test AUC', _spread_note(seeds))
  _draw_auc(panels[0], rows, table['base'])
  if has_differences:
    note = '95 % interval, paired, over test users; grey: contains 0'
    _style(panels[1], f'Difference to {table["base"]}', note)
    _draw_differences(panels[1], rows, table['base'])
  panels[0].set_yticks(range(len(rows)), [row['model'] for row in rows])
  panels[0].set_ylim(-0.6, len(rows) - 0.4)
  for label, row in zip(panels[0].get_yticklabels(), rows, strict=True):
    label.set_color(_QUIET if row['model'] == table['base'] else _INK)
  made.tight_layout(w_pad=2.5)
  temporary = path.with_suffix('.tmp')
  made.savefig(temporary, format='png')
  temporary.replace(path)
  return True


def _spread_note(seeds: int) -> str:
  if seeds == 1:
    return 'one seed'
  return f'mean and standard deviation over {seeds} seeds'


def _style(axes: Any, title: str, note: str) -> None:
  for side in ('top', 'right', 'left'):
    axes.spines[side].set_visible(False)
  axes.spines['bottom'].set_color(_QUIET)
  axes.tick_params(axis='y', length=0, labelsize=10)
  axes.tick_params(axis='x', colors=_QUIET, labelsize=8.5)
  axes.grid(axis='x', color=_RULE, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.locator_params(axis='x', nbins=5)
  axes.set_title(title, loc='left', fontsize=11.5, color=_INK, pad=20)
  axes.text(
    0, 1.0, note, fontsize=8.5, color=_QUIET, va='bottom',
    transform=axes.transAxes,
  )  # fmt: skip


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
    _label(axes, mean, height, f'{mean:.4f}')
  axes.margins(x=0.12)


def _draw_differences(axes: Any, rows: list[Any], base: str) -> None:
  axes.axvline(0, color=_QUIET, linewidth=1.2)
  for height, row in enumerate(rows):
    if (found := row.get('auc_difference')) is None:
      continue
    color = _color(row, base)
    axes.plot(
      [found['low'], found['high']], [height] * 2, color=color,
      linewidth=2.2, solid_capstyle='round',
    )  # fmt: skip
    axes.plot(found['mean'], height, 'o', color=color, markersize=6.5)
    _label(
      axes,
      found['mean'],
      height,
      f'{found["mean"]:+.4f}'.replace('-', '\u2212'),
    )
  axes.margins(x=0.12)


def _color(row: Any, base: str) -> str:
  """Blue or orange where the interval leaves 0 out, else grey."""
  found = row.get('auc_difference')
  if row['model'] == base or found is None:
    return _BASE
  if found['low'] > 0:
    return _BETTER
  return _WORSE if found['high'] < 0 else _BASE


def _label(axes: Any, x: float, y: float, text: str) -> None:
  from matplotlib import patheffects

  axes.annotate(
    text,
    (x, y),
    xytext=(0, 7),
    textcoords='offset points',
    fontsize=8,
    color=_INK,
    ha='center',
    path_effects=[patheffects.withStroke(linewidth=2.5, foreground='white')],
  )
