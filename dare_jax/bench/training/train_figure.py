"""The picture of `bench train`: where a step's time goes, point by point."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from dare_jax import plots

_PARTS = (
  ('gather_ms', 'gather', plots.BLUE),
  ('model_ms', 'model', plots.TEAL),
  ('update_ms', 'update', plots.ORANGE),
)
_HOST = plots.PALE  # What happens beside the step.
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
    rows: the rows of `bench train`.
    path: the PNG file to write.
  """
  height = 1.9 + 0.5 * len(rows)
  drawing, (times, memory) = plots.panels(
    10.0, height, 2, sharey=True, gridspec_kw={'width_ratios': (2.4, 1)}
  )
  plots.style_rows(times, 'Time of a step', 'ms')
  plots.style_rows(memory, 'Peak memory', 'GB')
  _draw_times(times, rows)
  for place, row in enumerate(rows):
    value = row['peak_rss_mb'] / 1e3
    memory.barh(place, value, height=0.5, color=plots.QUIET)
    _tell(memory, value, place, f'{value:.1f}')
  times.set_yticks(range(len(rows)), names(rows))
  times.set_ylim(len(rows) - 0.4, -0.6)
  memory.margins(x=0.2)
  times.margins(x=0.2)
  entries = [(text, color, False) for _, text, color in _PARTS]
  entries.append(('host: batch and rows, in a thread', _HOST, False))
  plots.legend(drawing, [*entries, ('the whole step', plots.INK, True)])
  plots.save(drawing, path, top=1 - 0.3 / height)


def _draw_times(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
  for place, row in enumerate(rows):
    left = 0.0
    for key, _, color in _PARTS:
      axes.barh(place - 0.1, row[key], 0.42, left=left, color=color)
      left += row[key]
    axes.barh(place + 0.22, row['host_ms'], 0.16, color=_HOST)
    axes.plot(
      [row['step_ms']] * 2, [place - 0.38, place + 0.18], color=plots.INK,
      linewidth=2,
    )  # fmt: skip
    end = max(left, row['step_ms'], row['host_ms'])
    _tell(axes, end, place, f'{row["examples_per_s"]:,.0f} examples/s')


def _tell(axes: Any, x: float, place: float, text: str) -> None:
  plots.label(
    axes, x, place, text, (5, 0), fontsize=8.5, ha='left', va='center'
  )
