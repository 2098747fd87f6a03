"""The picture of `bench lead`: the base's lead against moments an item."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from dare_jax import plots


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draws one panel for each run length, one line for each log and model.

  Args:
    rows: the rows of `bench lead`.
    path: the PNG file to write.
  """
  lengths = sorted({_epochs(row) for row in rows})
  places = sorted({row['moments_an_item'] for row in rows})
  drawing, panels = plots.panels(
    1.5 + 4.0 * len(lengths), 4.2, len(lengths), sharex=True, sharey=True
  )
  is_of_one_log = len({row['log'] for row in rows}) == 1
  kind_of = _model if is_of_one_log else _log_and_model
  kinds = sorted({kind_of(row) for row in rows})
  colors = dict(zip(kinds, plots.COLORS, strict=False))
  for axes, length in zip(panels, lengths, strict=True):
    title = f'{length:g} epoch' + ('s' if length != 1 else '')
    plots.style_lines(
      axes, title, 'AUC of the base minus that of the model',
      'training moments of an item in an epoch',
    )  # fmt: skip
    axes.axhline(0, color=plots.QUIET, linewidth=1.2)
    axes.set_xscale('log')
    axes.set_xticks(places, [f'{place:.2g}' for place in places])
    axes.xaxis.minorticks_off()
    for kind in kinds:
      of_kind = [
        row for row in rows if (kind_of(row), _epochs(row)) == (kind, length)
      ]
      _line(axes, of_kind, colors[kind])
  plots.legend(drawing, [(kind, colors[kind], True) for kind in kinds])
  plots.save(drawing, path, top=0.93)


def _line(axes: Any, rows: Sequence[Mapping[str, Any]], color: str) -> None:
  rows = sorted(rows, key=lambda row: row['moments_an_item'])
  x = [row['moments_an_item'] for row in rows]
  axes.plot(x, [row['lead'] for row in rows], '-o', color=color, markersize=5)
  for row in rows:
    axes.plot(
      [row['moments_an_item']] * 2, [row['lead_low'], row['lead_high']],
      color=color, linewidth=2.2, alpha=0.5, solid_capstyle='round',
    )  # fmt: skip


def _model(row: Mapping[str, Any]) -> str:
  return row['model']


def _log_and_model(row: Mapping[str, Any]) -> str:
  return f'{row["log"]}: {row["model"]}'


def _epochs(row: Mapping[str, Any]) -> float:
  return round(row['epochs'], 1)
