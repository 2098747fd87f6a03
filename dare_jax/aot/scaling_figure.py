"""Memory and bytes of a chip against chips or rows, from rows of `pod`."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from dare_jax import plots

# Chips, value, and whether a step fits, of each point of a line.
_Points = tuple[tuple[int, float, bool], ...]


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draws what chips need and move against their number, or that of rows.

  Args:
    rows: the rows of the benchmark `pod`, all of one width. Where all have as
      many chips, those are not what is compared.
    path: the PNG file to write.
  """
  if len({row['chips'] for row in rows}) > 1:
    _against_chips(rows, path)
  else:
    _against_rows(rows, path)


def _against_rows(
  rows: Sequence[Mapping[str, Any]], path: pathlib.Path
) -> None:
  """Draws what is needed, of which temporary, and what a step moves."""
  rows = sorted(rows, key=lambda row: row['rows'])
  told = [row for row in rows if row['temporary_mb'] is not None]
  chips = f'{rows[0]["chips"]} chips'
  drawing, (left, right) = plots.panels(9.0, 3.8, 2)
  axis = 'rows of the item tables'
  plots.style_lines(left, 'Memory a chip needs', f'GB, {chips}', axis)
  plots.style_lines(right, 'Bytes of a step', f'GB of a chip, {chips}', axis)
  moved = 'read and written', right, 'bytes_accessed_mb'
  if not any(row['bytes_accessed_mb'] for row in told):  # As of GPUs.
    moved = 'received', right, 'all_to_all_mb'
  lines = [
    ('in all', left, 'needed_mb'),
    ('temporary', left, 'temporary_mb'),
    moved,
  ]
  for color, (name, axes, key) in zip(plots.COLORS, lines, strict=False):
    counted = [row for row in told if row[key] is not None]
    sizes = [row['rows'] for row in counted]
    values = [row[key] / 1e3 for row in counted]
    axes.plot(sizes, values, 'o-', color=color, linewidth=1.8, label=name)
  for axes in (left, right):
    axes.set_xscale('log')
    axes.legend(frameon=False, fontsize=8.5, labelcolor=plots.INK)
  left.set_yscale('log')
  right.set_ylim(0, 1.1 * right.get_ylim()[1])
  plots.save(drawing, path)


def _against_chips(
  rows: Sequence[Mapping[str, Any]], path: pathlib.Path
) -> None:
  """Draws a line for each number of rows, and the memory of a chip.

  Numbers of rows whose steps receive as many bytes share a line.
  """
  drawing, (left, right) = plots.panels(9.0, 3.8, 2)
  memory, received = 'Memory a chip needs', 'Bytes a chip receives in a step'
  plots.style_lines(left, memory, 'GB, by rows of the item tables', 'chips')
  plots.style_lines(right, received, 'MB, by rows', 'chips')
  sizes = sorted({row['rows'] for row in rows})
  exchanges: dict[_Points, list[int]] = {}
  for color, size in zip(plots.COLORS, sizes, strict=False):
    of_size = sorted(
      (row for row in rows if row['rows'] == size),
      key=lambda row: row['chips'],
    )
    needed = lambda row: row['needed_mb'] / 1e3
    _line(left, _points(of_size, needed), color, [size])
    counted = [row for row in of_size if row['all_to_all_mb'] is not None]
    total = lambda row: row['all_to_all_mb'] + row['other_collectives_mb']
    if counted:
      exchanges.setdefault(_points(counted, total), []).append(size)
  for points, alike in exchanges.items():
    own = plots.COLORS[sizes.index(alike[0])]
    _line(right, points, plots.INK if len(alike) > 1 else own, alike)
  chip = {row['chip_mb'] for row in rows} - {None}
  most = max(row['chips'] for row in rows)
  for size in chip:
    left.axhline(size / 1e3, color=plots.INK, linewidth=1.0, linestyle='--')
    text = f'a chip has {size / 1e3:.1f} GB'
    plots.label(left, most, size / 1e3, text, (0, 4), fontsize=8.5, ha='right')
  left.set_yscale('log')
  right.set_ylim(bottom=0)
  for axes in (left, right):
    plots.ticks(axes, sorted({row['chips'] for row in rows}), base=2)
  look = {'frameon': False, 'fontsize': 8.5, 'labelcolor': plots.INK}
  left.legend(**look, loc='upper right', bbox_to_anchor=(1, 0.94))
  right.legend(**look)
  plots.save(drawing, path)


def _points(
  rows: Sequence[Mapping[str, Any]], value: Callable[[Any], float]
) -> _Points:
  return tuple(
    (row['chips'], round(value(row), 3), row['fits']) for row in rows
  )


def _line(axes: Any, points: _Points, color: str, sizes: Sequence[int]) -> None:
  """Draws what fits as full points, what does not as empty ones."""
  label = ', '.join(f'{size:.0e}' for size in sizes) + ' rows'
  chips, values, _ = zip(*points, strict=True)
  axes.plot(chips, values, color=color, linewidth=1.8, label=label)
  for x, y, fits in points:
    face = color if fits else 'white'
    axes.plot(x, y, 'o', color=color, markerfacecolor=face, markersize=5.5)
