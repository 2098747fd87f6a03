"""Memory and bytes of a chip against chips and rows, from rows of `pod`."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import importlib.util
import pathlib
from typing import Any

_INK, _QUIET, _RULE = '#1f2933', '#7b8794', '#e4e7eb'
_COLORS = ('#1f6fb4', '#c2571a', '#3a8f5c', '#7a5195', '#7b8794')


def can_draw() -> bool:
  """Is matplotlib installed?"""
  return importlib.util.find_spec('matplotlib') is not None


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draws a line for each number of rows, and the memory of a chip.

  Args:
    rows: of the benchmark `pod`, of one width.
    path: of the PNG.
  """
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  made = figure.Figure(figsize=(9.0, 3.8), dpi=160, facecolor='white')
  backend_agg.FigureCanvasAgg(made)
  left, right = made.subplots(1, 2)
  _style(left, 'Memory a chip needs', 'GB, by rows of the item tables')
  _style(right, 'Bytes a chip receives in a step', 'MB, by rows')
  sizes = sorted({row['rows'] for row in rows})
  for color, size in zip(_COLORS, sizes, strict=False):
    own = sorted(
      (row for row in rows if row['rows'] == size),
      key=lambda row: row['chips'],
    )
    _line(left, own, lambda row: row['needed_mb'] / 1e3, color, size)
    received = [row for row in own if row['all_to_all_mb'] is not None]
    total = lambda row: row['all_to_all_mb'] + row['other_collectives_mb']
    _line(right, received, total, color, size)
  chip = {row['chip_mb'] for row in rows} - {None}
  for size in chip:
    left.axhline(size / 1e3, color=_INK, linewidth=1.0, linestyle='--')
    left.annotate(
      f'a chip has {size / 1e3:.1f} GB', (1, size / 1e3),
      xycoords=('axes fraction', 'data'), xytext=(0, 4),
      textcoords='offset points', ha='right', fontsize=8.5, color=_INK,
    )  # fmt: skip
  left.set_yscale('log')
  right.set_ylim(bottom=0)
  chips = sorted({row['chips'] for row in rows})
  for axes in (left, right):
    axes.set_xscale('log', base=2)
    axes.set_xticks(chips, [str(count) for count in chips])
    axes.minorticks_off()
    axes.set_xlabel('chips', fontsize=9, color=_QUIET)
  left.legend(frameon=False, fontsize=8.5, labelcolor=_INK)
  made.tight_layout(w_pad=2.5)
  made.savefig(path, format='png')


def _line(axes: Any, rows: Any, value: Any, color: str, size: int) -> None:
  """Draws what fits as full points, what does not as empty ones."""
  chips = [row['chips'] for row in rows]
  values = [value(row) for row in rows]
  axes.plot(chips, values, color=color, linewidth=1.8, label=f'{size:.0e} rows')
  for row, x, y in zip(rows, chips, values, strict=True):
    face = color if row['fits'] else 'white'
    axes.plot(x, y, 'o', color=color, markerfacecolor=face, markersize=5.5)


def _style(axes: Any, title: str, note: str) -> None:
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)
  for side in ('bottom', 'left'):
    axes.spines[side].set_color(_QUIET)
  axes.tick_params(colors=_QUIET, labelsize=8.5)
  axes.grid(axis='y', color=_RULE, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.set_title(title, loc='left', fontsize=11.5, color=_INK, pad=20)
  axes.text(
    0, 1.02, note, fontsize=8.5, color=_QUIET, va='bottom',
    transform=axes.transAxes,
  )  # fmt: skip
