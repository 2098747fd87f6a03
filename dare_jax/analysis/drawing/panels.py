"""Panels of figures: drawn once, shown as PNG, or as SVG in a page's colors."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import io
import re
from typing import Any

INK, QUIET, RULE = '#1f2933', '#6b7785', '#e4e7eb'
SERIES = ('#1f6fb4', '#c2571a', '#2f8a57', '#8a5fbf', '#a1790f', '#c04a7e')
# What a page calls these; it defines the variables for each theme.
_VARIABLES = {
  INK: 'ink',
  QUIET: 'quiet',
  RULE: 'rule',
  **{color: f'series{index}' for index, color in enumerate(SERIES)},
}
_STYLE: Any = {  # matplotlib types the names one by one.
  'svg.fonttype': 'none',
  'svg.hashsalt': 'dare_jax',
  'font.size': 9.0,
  'text.color': INK,
  'axes.labelcolor': QUIET,
  'axes.edgecolor': QUIET,
  'xtick.color': QUIET,
  'ytick.color': QUIET,
}


@dataclasses.dataclass(frozen=True)
class Panel:
  """One pair of axes.

  Attributes:
    title: what is drawn, in a few words.
    note: a line under the title: which data, in which unit.
    draw: draws the panel on the matplotlib axes that it is given.
    height: height in inches; a panel is `WIDTH` wide.
  """

  title: str
  note: str
  draw: Callable[[Any], None]
  height: float = 3.3


WIDTH = 4.5


def png(panels: Sequence[Panel]) -> bytes:
  """Returns the panels side by side, three in a row, on white."""
  import matplotlib
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  columns = min(3, len(panels))
  rows = -(-len(panels) // columns)
  height = max(panel.height for panel in panels)
  with matplotlib.rc_context(_STYLE):
    made = figure.Figure(
      figsize=(WIDTH * columns, height * rows), dpi=160, facecolor='white'
    )
    backend_agg.FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False).ravel()
    for place, panel in zip(axes, panels, strict=False):
      _fill(place, panel)
    for place in axes[len(panels) :]:
      place.set_axis_off()
    made.tight_layout(w_pad=2.0, h_pad=2.0)
    content = io.BytesIO()
    made.savefig(content, format='png')
  return content.getvalue()


def svg(panel: Panel) -> str:
  """Returns a panel as an `<svg>` element, in the colors of its page."""
  import matplotlib
  from matplotlib import figure
  from matplotlib.backends import backend_svg

  with matplotlib.rc_context(_STYLE):
    made = figure.Figure(figsize=(WIDTH, panel.height))
    backend_svg.FigureCanvasSVG(made)
    made.patch.set_visible(False)
    axes = made.subplots()
    _fill(axes, panel)
    made.tight_layout()
    content = io.StringIO()
    made.savefig(content, format='svg', metadata={'Date': None})
  text = content.getvalue()
  text = text[text.index('<svg') :]
  text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.S)
  text = re.sub(r'<g id="[^"]*"', '<g', text)
  text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', text, count=1)
  text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', text, count=1)
  text = re.sub(r'(font: [^;\"]*?px) [^;\"]*', r'\1 sans-serif', text)
  for color, name in _VARIABLES.items():
    text = text.replace(color, f'var(--{name})')
  label = panel.title.replace('&', '&amp;').replace('"', '&quot;')
  return text.replace('<svg', f'<svg role="img" aria-label="{label}"', 1)


def _fill(axes: Any, panel: Panel) -> None:
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)
  axes.grid(color=RULE, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.set_facecolor('none')
  axes.tick_params(labelsize=8)
  panel.draw(axes)
  axes.set_title(panel.title, loc='left', fontsize=10.5, color=INK, pad=20)
  axes.text(
    0, 1.0, panel.note, fontsize=8, color=QUIET, va='bottom',
    transform=axes.transAxes, linespacing=1.3,
  )  # fmt: skip


def color(index: int) -> str:
  """Returns the color of a run by its number."""
  return SERIES[index % len(SERIES)]


def style(index: int) -> str:
  """Returns the line of a run by its number; colors come again after six."""
  return ('-', '--', ':')[index // len(SERIES) % 3]


def lines(
  x: Sequence[float],
  series: dict[str, Sequence[float]],
  x_label: str,
) -> Callable[[Any], None]:
  """Returns what draws a line for each label from 0 on, with a legend."""

  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    for index, (label, y) in enumerate(series.items()):
      axes.plot(
        x, y, style(index), color=color(index), linewidth=2, label=label
      )
    axes.set_xlabel(x_label, fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0)
    legend(axes)

  return draw


def legend(axes: Any) -> None:
  """Adds a legend without a frame."""
  axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def intervals(
  rows: Sequence[str],
  series: dict[str, Sequence[dict[str, float] | None]],
) -> Callable[[Any], None]:
  """Returns what draws means with intervals, a row for each name.

  Args:
    rows: names of the rows, the first one at the top.
    series: label -> for each row 'mean', 'low' and 'high', or None.
  """

  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    step = 0.6 / max(1, len(series))
    for index, (label, estimates) in enumerate(series.items()):
      name: str | None = label
      for row, estimate in enumerate(estimates):
        if estimate is None:
          continue
        y = len(rows) - 1 - row + 0.3 - step * (index + 0.5)
        bounds = [estimate['low'], estimate['high']]
        axes.plot(bounds, [y, y], color=color(index), linewidth=2, alpha=0.5)
        axes.plot(
          estimate['mean'], y, 'o', color=color(index), markersize=5, label=name
        )
        name = None
    axes.set_yticks(range(len(rows)), rows[::-1])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis='y', length=0, colors=INK)
    if len(series) > 1:
      legend(axes)

  return draw


def heat(
  grid: Sequence[Sequence[float]],
  columns: Sequence[str],
  rows: Sequence[str],
  x_label: str,
) -> Callable[[Any], None]:
  """Returns what draws a grid of values from 0 to 1, the first row on top."""

  def draw(axes: Any) -> None:
    """Draws into the axes of a panel."""
    axes.grid(False)
    axes.pcolormesh(grid, cmap='viridis', vmin=0, vmax=1, edgecolors='none')
    axes.invert_yaxis()
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns)
    short = [name if len(name) <= 22 else f'{name[:21]}…' for name in rows]
    axes.set_yticks([i + 0.5 for i in range(len(rows))], short)
    axes.tick_params(length=0, labelsize=7)
    axes.set_xlabel(x_label, fontsize=8)
    for side in ('left', 'bottom'):
      axes.spines[side].set_visible(False)

  return draw
