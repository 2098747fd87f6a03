"""A comparison to read: aligned text for the screen, Markdown for a page."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from dare_jax.evaluation import retrieval
from dare_jax.runs import report

Row = Mapping[str, Any]
# Heading -> what a row has there; None leaves the cell empty.
Columns = Mapping[str, Callable[[Row], str | None]]

_METHOD = (
  'Mean ± standard deviation over the seeds. The difference is paired: same'
  ' test rows, seed by seed; its 95 % interval is a bootstrap over test users.'
)


def _metric(name: str) -> Callable[[Row], str | None]:
  def cell(row: Row) -> str | None:
    if name not in row:
      return None
    mean, std = row[name]['mean'], row[name]['std']
    return f'{mean:.4f}' if std is None else f'{mean:.4f} ± {std:.4f}'

  return cell


def _cost(name: str) -> Callable[[Row], str | None]:
  def cell(row: Row) -> str | None:
    if name not in row:
      return None
    mean = row[name]['mean']
    return f'{mean:,.0f}' if mean >= 100 else f'{mean:.3g}'

  return cell


def _parameters(role: str) -> Callable[[Row], str | None]:
  return lambda row: (
    f'{row["parameters"][role]:,}' if 'parameters' in row else None
  )


def _difference(row: Row) -> str | None:
  if 'auc_difference' not in row:
    return None
  found = row['auc_difference']
  return f'{found["mean"]:+.4f} ({found["low"]:+.4f}, {found["high"]:+.4f})'


def _seeds(row: Row) -> str:
  return (
    str(row['seeds'])
    if row['status'] == 'done'
    else (f'{row["seeds"]}, {row["status"]}')
  )


def _tables(table: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
  """Title, then the cells line by line, heads first."""
  model: Columns = {'model': lambda row: row['model']}
  quality = {
    'seeds': _seeds,
    'AUC': _metric('auc'),
    f'AUC minus that of {table["base"]}': _difference,
    'GAUC': _metric('gauc'),
    'GAUC, category': _metric('category_gauc'),
    'logloss': _metric('logloss'),
  }
  slices = {
    'AUC, item seen': _metric('auc_item_seen'),
    'AUC, item unseen': _metric('auc_item_unseen'),
    'search NDCG@20': _metric(retrieval.METRIC),
    'targets/s': _cost('examples_per_s'),
    'training, s': _cost('train_time_s'),
  }
  parameters = {
    'attention tables': _parameters('attention_tables'),
    'representation tables': _parameters('representation_tables'),
    'other': _parameters('other'),
  }
  tables = []
  for title, columns in (
    ('On the test rows', quality),
    ('By slice, and cost', slices),
    ('Parameters', parameters),
  ):
    cells = _cells(table['rows'], {**model, **columns})
    if len(cells[0]) > 1:
      tables.append((title, cells))
  return tables


def text(table: Mapping[str, Any]) -> str:
  """Returns the tables aligned, for the screen."""
  lines = []
  for title, cells in _tables(table):
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines += ['', title]
    for row in cells:
      first, *others = (
        cell.ljust(width) if index == 0 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
      )
      lines.append('  '.join(['', first, *others]).rstrip())
  lines += ['', _METHOD, *_remarks(table)]
  return '\n'.join(lines)


def markdown(table: Mapping[str, Any], has_figure: bool) -> str:
  """Returns the page `table.md`; with the figure, if there is one."""
  lines = ['# Comparison', '']
  for title, (head, *rows) in _tables(table):
    lines += [f'## {title}', '', _line(head)]
    lines.append(_line([':--', *['--:'] * (len(head) - 1)]))
    lines += [*map(_line, rows), '']
  lines += [_METHOD, '']
  if remarks := _remarks(table):
    lines += [*(f'- {line}' for line in remarks), '']
  seeds = '1 seed' if table['seeds'] == 1 else f'{table["seeds"]} seeds'
  if has_figure:
    lines += ['![AUC and its differences](comparison.png)', '']
  lines += [f'Made with {seeds} by', '', f'    {table["command"]}', '']
  for environment in table['environments']:
    lines += [f'on {_environment(environment)}.', '']
  return '\n'.join(lines)


def _cells(rows: Sequence[Row], columns: Columns) -> list[list[str]]:
  """Heads, then rows; columns without any value are left out."""
  found = {head: [cell(row) for row in rows] for head, cell in columns.items()}
  kept = {head: cells for head, cells in found.items() if any(cells)}
  return [
    list(kept),
    *([cell or '' for cell in row] for row in zip(*kept.values(), strict=True)),
  ]


def _line(cells: Sequence[str]) -> str:
  return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def _remarks(table: Mapping[str, Any]) -> list[str]:
  """Which models failed, and what is not defined for others, and why."""
  failed = [
    f'{row["model"]} failed: {row["reason"]}'
    for row in table['rows']
    if row['status'] == 'failed'
  ]
  undefined = [
    f'{row["model"]}, left out: {report.left_out(row["left_out"])}'
    for row in table['rows']
    if row['left_out']
  ]
  unpaired = [
    f'{row["model"]}, no difference of {row["unpaired"]}'
    for row in table['rows']
    if 'unpaired' in row
  ]
  return failed + undefined + unpaired


def _environment(environment: Mapping[str, Any]) -> str:
  versions = [
    f'{name} {value}'
    for name, value in environment.items()
    if name not in ('devices', 'platform')
  ]
  devices = environment['devices']
  return f'{len(devices)} x {devices[0]}, {", ".join(versions)}'
