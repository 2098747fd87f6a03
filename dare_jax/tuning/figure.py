"""`importance.png`: which fields matter, and how the sweep went."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from dare_jax import errors
from dare_jax import plots
from dare_jax.tuning import table as table_lib

MISSING = (
  'importance.png is left out: it needs matplotlib;'
  f' {errors.install("tune")}, and the same command again will draw it'
)


def draw(table: Mapping[str, Any], path: pathlib.Path) -> bool:
  """Draws the shares of the fields, and the value of each trial.

  Args:
    table: what `trials.json` holds.
    path: the PNG file to write.

  Returns:
    Whether there was something to draw, and something to draw it with.
  """
  if not table['importance'] or not plots.can_draw():
    return False
  shares = sorted(table['importance'].items(), key=lambda pair: pair[1])
  height = max(3.4, 1.5 + 0.42 * len(shares))
  drawing, panels = plots.panels(9.6, height, 2)
  count = len(table_lib.ranked(table))
  note = f'share of the variance over {count} trials, by fANOVA'
  plots.style_rows(panels[0], 'Which fields matter', note)
  heights = range(len(shares))
  panels[0].barh(
    heights, [share for _, share in shares], color=plots.BLUE, height=0.55
  )
  panels[0].set_yticks(heights, [name for name, _ in shares])
  for place, (_, share) in zip(heights, shares, strict=True):
    plots.label(
      panels[0], share, place, f'{share:.2f}', shift=(4, -3), ha='left'
    )
  panels[0].set_ylim(-0.6, len(shares) - 0.4)
  panels[0].set_xlim(0, 1.12 * shares[-1][1])
  _draw_trials(panels[1], table)
  plots.save(drawing, path)
  return True


def _draw_trials(axes: Any, table: Mapping[str, Any]) -> None:
  """Draws each trial's value, and the best so far."""
  own = table_lib.of_config(table)
  note = 'line: the best so far'
  if own is not None:
    note += "; orange: the config's own values"
  plots.style_lines(axes, f'{table["metric"]} of each trial', note, 'trial')
  done = sorted(table_lib.ranked(table), key=lambda row: row['number'])
  best, numbers, values = [], [], []
  for row in done:
    numbers.append(row['number'])
    values.append(row['value'])
    better = max if table['direction'] == 'maximize' else min
    best.append(better(values))
  axes.step(numbers, best, where='post', color=plots.BLUE, linewidth=2)
  axes.plot(numbers, values, 'o', color=plots.QUIET, markersize=4.5)
  if own is not None:
    axes.plot(own['number'], own['value'], 'o', color=plots.ORANGE)
  plots.label(axes, numbers[-1], best[-1], f'{best[-1]:.4f}', ha='right')
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.margins(y=0.14)
