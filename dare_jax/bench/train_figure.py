"""The picture of `bench train`: where a step's time goes, point by point."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import importlib.util
import pathlib
from typing import Any

from dare_jax import errors

_INK, _QUIET, _RULE = '#1f2933', '#7b8794', '#e4e7eb'
# Blue, teal, orange, and a grey for what happens beside the step.
_PARTS = (
  ('gather_ms', 'gather', '#1f6fb4'),
  ('model_ms', 'model', '#58a89b'),
  ('update_ms', 'update', '#d9822b'),
)
_HOST = '#c3cad2'
# What names a point, if it differs between points.
_NAMES = {
  'model': '{}',
  'rows': '{:,} rows',
  'history_length': 'history {}',
  'dim': 'dim {}',
  'targets_per_step': '{} targets',
  'moments_per_window': '{} a window',
  'optimizer': '{}',
}


def check() -> None:
  """Raises UsageError if nothing can be drawn."""
  if importlib.util.find_spec('matplotlib') is None:
    raise errors.UsageError(
      f'--figure needs matplotlib: {errors.install("figures")}.'
    )


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns a name of each row, from what differs between them.

  >>> row = dict(model='dare', history_length=200, dim=16, optimizer='sgd')
  >>> row |= dict(targets_per_step=2049, moments_per_window=1)
  >>> names([row | {'rows': 68_000}, row | {'rows': 4_000_000}])
  ['68,000 rows', '4,000,000 rows']
  """
  differing = [
    key for key in _NAMES if len({row[key] for row in rows}) > 1
  ] or ['model', 'rows']
  return [
    ', '.join(_NAMES[key].format(row[key]) for key in differing) for row in rows
  ]


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draws the split of the step's time and the peak memory of each row.

  Args:
    rows: of `bench train`.
    path: of the PNG.
  """
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  made = figure.Figure(
    figsize=(10.0, 1.7 + 0.5 * len(rows)), dpi=160, facecolor='white'
  )
  backend_agg.FigureCanvasAgg(made)
  times, memory = made.subplots(
    1, 2, sharey=True, gridspec_kw={'width_ratios': (2.4, 1)}
  )
  _style(times, 'Time of a step, ms')
  _style(memory, 'Peak memory, GB')
  _draw_times(times, rows)
  for place, row in enumerate(rows):
    value = row['peak_rss_mb'] / 1e3
    memory.barh(place, value, height=0.5, color=_QUIET)
    _tell(memory, value, place, f'{value:.1f}')
  times.set_yticks(range(len(rows)), names(rows))
  times.set_ylim(len(rows) - 0.4, -0.6)
  memory.margins(x=0.2)
  times.margins(x=0.2)
  _add_legend(made)
  made.tight_layout(w_pad=2.0, rect=(0, 0, 1, 1 - 0.3 / made.get_figheight()))
  temporary = path.with_suffix('.tmp')
  made.savefig(temporary, format='png')
  temporary.replace(path)


def _draw_times(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
  for place, row in enumerate(rows):
    left = 0.0
    for key, _, color in _PARTS:
      axes.barh(place - 0.1, row[key], 0.42, left=left, color=color)
      left += row[key]
    axes.barh(place + 0.22, row['host_ms'], 0.16, color=_HOST)
    axes.plot(
      [row['step_ms']] * 2, [place - 0.38, place + 0.18], color=_INK,
      linewidth=2,
    )  # fmt: skip
    end = max(left, row['step_ms'], row['host_ms'])
    _tell(axes, end, place, f'{row["examples_per_s"]:,.0f} examples/s')


def _add_legend(made: Any) -> None:
  from matplotlib import lines
  from matplotlib import patches

  parts: list[Any] = [
    patches.Patch(color=color, label=label) for _, label, color in _PARTS
  ]
  parts.append(
    patches.Patch(color=_HOST, label='host: batch and rows, in a thread')
  )
  parts.append(
    lines.Line2D([], [], color=_INK, linewidth=2, label='the whole step')
  )
  made.legend(
    handles=parts, loc='upper left', ncols=len(parts), frameon=False,
    fontsize=8.5, labelcolor=_INK,
  )  # fmt: skip


def _style(axes: Any, title: str) -> None:
  for side in ('top', 'right', 'left'):
    axes.spines[side].set_visible(False)
  axes.spines['bottom'].set_color(_QUIET)
  axes.tick_params(axis='y', length=0, labelsize=9.5)
  axes.tick_params(axis='x', colors=_QUIET, labelsize=8.5)
  axes.grid(axis='x', color=_RULE, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.locator_params(axis='x', nbins=6)
  axes.set_title(title, loc='left', fontsize=11, color=_INK)


def _tell(axes: Any, x: float, place: float, text: str) -> None:
  axes.annotate(
    text, (x, place), xytext=(5, 0), textcoords='offset points', fontsize=8.5,
    color=_INK, va='center',
  )  # fmt: skip
