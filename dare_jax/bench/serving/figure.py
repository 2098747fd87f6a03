"""The picture of `bench serve`: latency against offered load, and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import statistics
from typing import Any

from dare_jax import plots

_PARTS = (
  ('queue_ms', 'queue', plots.PALE),
  ('parse_ms', 'JSON in', plots.GOLD),
  ('state_ms', 'state', plots.GREEN),
  ('ids_ms', 'ids', plots.TEAL),
  ('score_ms', 'search and head', plots.BLUE),
  ('answer_ms', 'JSON out', plots.ORANGE),
)
Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, path: pathlib.Path) -> None:
  """Draws p50 and p99 of warm requests by load, a panel for each case.

  The last panel splits the mean time in the server at each case's lowest load.

  Args:
    rows: the rows of `bench serve`.
    path: the PNG file to write.
  """
  warm = [row for row in rows if row['phase'] == 'warm']
  cases = list(dict.fromkeys(row['case'] for row in warm))
  drawing, axes = plots.panels(4.1 * (len(cases) + 1), 4.4, len(cases) + 1)
  for panel, case in zip(axes, cases, strict=False):
    _draw_latency(panel, case, [row for row in warm if row['case'] == case])
  _draw_parts(axes[-1], warm, cases)
  parts = [(text, color, False) for _, text, color in _PARTS]
  plots.legend(drawing, parts)
  plots.save(drawing, path, top=0.93)


def _draw_latency(axes: Any, case: str, rows: Rows) -> None:
  from matplotlib import ticker

  note = 'ms from the time due; dashed: p99'
  plots.style_lines(axes, f'Latency, {case}', note, 'offered requests a second')
  sides = list(dict.fromkeys(row['side'] for row in rows))
  for side, color in zip(sides, (plots.BLUE, plots.ORANGE), strict=False):
    own = [row for row in rows if row['side'] == side]
    rates = sorted({row['offered_per_s'] for row in own})
    for key, style in (('p50_ms', '-'), ('p99_ms', '--')):
      values = [
        statistics.median(row[key] for row in own if row['offered_per_s'] == x)
        for x in rates
      ]
      axes.plot(
        rates, values, style, color=color, marker='o', markersize=4,
        linewidth=1.8,
      )  # fmt: skip
      if key == 'p50_ms':
        plots.label(
          axes, rates[-1], values[-1], side, (0, -13), color=color, ha='right'
        )
  axes.set_yscale('log')
  axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_major_formatter('{x:g}')
  axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  axes.margins(x=0.08, y=0.15)


def _draw_parts(axes: Any, rows: Rows, cases: Sequence[str]) -> None:
  plots.style_rows(axes, 'Where time goes', 'ms in the server, lowest load')
  bars = []
  for case in cases:
    own = [row for row in rows if row['case'] == case]
    for side in dict.fromkeys(row['side'] for row in own):
      of_side = [row for row in own if row['side'] == side]
      bars.append(min(of_side, key=lambda row: row['offered_per_s']))
  for place, row in enumerate(bars):
    left = 0.0
    for key, _, color in _PARTS:
      axes.barh(place, row[key], 0.5, left=left, color=color)
      left += row[key]
    plots.label(
      axes, left, place, f'{left:.1f}', (4, 0), ha='left', va='center'
    )
  axes.set_yticks(
    range(len(bars)), [f'{row["case"]}\n{row["side"]}' for row in bars]
  )
  axes.set_ylim(len(bars) - 0.4, -0.6)
  axes.margins(x=0.2)
