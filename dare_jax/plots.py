"""The one style of all figures, and the one place that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
import importlib.util
import pathlib
from typing import Any

from dare_jax import errors

INK, QUIET, RULE = '#1f2933', '#7b8794', '#e4e7eb'
BLUE, ORANGE, GREEN, PURPLE = '#1f6fb4', '#c2571a', '#3a8f5c', '#7a5195'
TEAL, RED, GOLD, PALE = '#58a89b', '#b03a5b', '#b8860b', '#c3cad2'
# Colors of lines, in this order; neighbours differ in grey, too.
COLORS = (BLUE, ORANGE, GREEN, PURPLE, TEAL, RED, GOLD, QUIET)


def can_draw() -> bool:
  """Is matplotlib installed?"""
  return importlib.util.find_spec('matplotlib') is not None


def require(flag: str) -> None:
  """Raises UsageError if a flag asks for a figure that cannot be drawn."""
  if not can_draw():
    raise errors.UsageError(
      f'{flag} needs matplotlib: {errors.install("figures")}.'
    )


def panels(
  width: float, height: float, columns: int = 1, **layout: Any
) -> tuple[Any, Sequence[Any]]:
  """Returns a new figure and its panels, side by side.

  Args:
    width: width of the figure, inches.
    height: height of the figure, inches.
    columns: number of panels.
    **layout: arguments of `Figure.subplots`, such as `sharey`.
  """
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  drawing = figure.Figure(figsize=(width, height), dpi=160, facecolor='white')
  backend_agg.FigureCanvasAgg(drawing)
  return drawing, drawing.subplots(1, columns, squeeze=False, **layout)[0]


def style_rows(axes: Any, title: str, note: str = '') -> None:
  """Styles a panel whose rows have names and whose x axis has values.

  Args:
    axes: the panel.
    title: what it shows.
    note: a line below the title.
  """
  for side in ('top', 'right', 'left'):
    axes.spines[side].set_visible(False)
  axes.spines['bottom'].set_color(QUIET)
  axes.tick_params(axis='y', length=0, labelsize=10)
  axes.tick_params(axis='x', colors=QUIET, labelsize=8.5)
  axes.grid(axis='x', color=RULE, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.locator_params(axis='x', nbins=6)
  _title(axes, title, note)


def style_lines(axes: Any, title: str, note: str = '', x: str = '') -> None:
  """Styles a panel of lines.

  Args:
    axes: the panel.
    title: what it shows.
    note: a line below the title.
    x: what the x axis counts.
  """
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)
  for side in ('bottom', 'left'):
    axes.spines[side].set_color(QUIET)
  axes.tick_params(colors=QUIET, labelsize=8.5)
  axes.grid(axis='y', color=RULE, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.set_xlabel(x, fontsize=9, color=QUIET)
  _title(axes, title, note)


def _title(axes: Any, title: str, note: str) -> None:
  axes.set_title(title, loc='left', fontsize=11.5, color=INK, pad=20)
  axes.text(
    0, 1.01, note, fontsize=8.5, color=QUIET, va='bottom',
    transform=axes.transAxes,
  )  # fmt: skip


def label(
  axes: Any,
  x: float,
  y: float,
  text: str,
  shift: tuple[float, float] = (0, 7),
  **look: Any,
) -> None:
  """Writes next to a point, readable over lines.

  Args:
    axes: the axes of the panel.
    x: horizontal place of the point, in the units of the axis.
    y: vertical place of the point, in the units of the axis.
    text: what to write.
    shift: offset of the text from the point, in points.
    **look: arguments of `Axes.annotate`, such as `color` or `ha`.
  """
  from matplotlib import patheffects

  axes.annotate(
    text, (x, y), xytext=shift, textcoords='offset points',
    path_effects=[patheffects.withStroke(linewidth=2.5, foreground='white')],
    **{'fontsize': 8, 'color': INK, 'ha': 'center', **look},
  )  # fmt: skip


def legend(drawing: Any, entries: Sequence[tuple[str, str, bool]]) -> None:
  """Puts a legend into a row at the top of a figure.

  Args:
    drawing: the matplotlib figure.
    entries: label, color, and whether it is a line rather than an area.
  """
  from matplotlib import lines
  from matplotlib import patches

  drawing.legend(
    handles=[
      lines.Line2D([], [], color=color, linewidth=2, label=text)
      if is_line
      else patches.Patch(color=color, label=text)
      for text, color, is_line in entries
    ],
    loc='upper left', ncols=len(entries), frameon=False, fontsize=8.5,
    labelcolor=INK,
  )  # fmt: skip


def ticks(axes: Any, values: Sequence[int], base: int = 10) -> None:
  """Gives a logarithmic x axis a tick at each of the values, and no other."""
  short = lambda value: f'{value // 1000}k' if value >= 10_000 else str(value)
  axes.set_xscale('log', base=base)
  axes.set_xticks(values, [short(value) for value in values])
  axes.xaxis.minorticks_off()


def save(drawing: Any, path: pathlib.Path, top: float = 1.0) -> None:
  """Writes a figure as PNG; a file that is there is replaced by a whole one.

  Args:
    drawing: the matplotlib figure.
    path: the PNG file to write.
    top: share of the height below what is fixed at the top.
  """
  drawing.tight_layout(w_pad=2.5, rect=(0, 0, 1, top))
  temporary = path.with_suffix('.tmp')
  drawing.savefig(temporary, format='png')
  temporary.replace(path)
