"""The rows of a check as Markdown, for a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dare_jax.device_check import parts

# Measures that are words, not values.
_TOLD = ('skipped', 'error')
_TITLES = {
  'machine': 'The device',
  'answers': 'Answers on the device',
  'parity': "Losses beside the CPU's",
  'kernels': 'Search over cached keys',
  'training': 'Training',
  'serving': 'One request after the other',
  'peer': 'PyTorch on the same device',
}


def show(ended: Sequence[parts.Ended], rows: Sequence[dict[str, Any]]) -> str:
  """Returns a table of each part: its cases, and what was measured of each.

  >>> row = dict(part='machine', case='H100', measure='copy_gb_per_s')
  >>> row |= dict(value=2900.0, passed=None, note='')
  >>> print(show([parts.Ended('machine', 'done', 3.0)], [row]))
  ### The device (done, 3 s)
  <BLANKLINE>
  | case | copy_gb_per_s |
  |---|---:|
  | H100 | 2,900 |

  Args:
    ended: how each part ended.
    rows: the rows that all parts made.
  """
  texts = []
  for end in ended:
    reason = f': {end.reason}' if end.reason else ''
    title = f'{_TITLES[end.part]} ({end.status}, {end.seconds:.0f} s{reason})'
    own = [row for row in rows if row['part'] == end.part]
    texts.append('\n'.join([f'### {title}', '', *_table(own)]))
  return '\n\n'.join(texts)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
  """Returns the lines of one part: a table, then what was said of cases."""
  measured = [row for row in rows if row['measure'] not in _TOLD]
  names = list(dict.fromkeys(row['measure'] for row in measured))
  lines = []
  if names:
    lines = [_line(['case', *names]), f'|---|{"---:|" * len(names)}']
  for case in dict.fromkeys(row['case'] for row in measured):
    found = {row['measure']: row for row in measured if row['case'] == case}
    cells = [_cell(found[name]) if name in found else '' for name in names]
    lines.append(_line([case, *cells]))
  notes = [
    f'- {row["case"]}, {row["measure"]}: {row["note"]}'
    for row in rows
    if row['note'] and (row['passed'] is False or row['measure'] in _TOLD)
  ]
  return [*lines, *([''] if lines and notes else []), *notes]


def _line(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'


def _cell(row: dict[str, Any]) -> str:
  """Returns a value; what should hold and does not is marked."""
  value = row['value']
  text = '' if value is None else str(value)
  if isinstance(value, float):
    text = f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  return f'**{text}, which fails**' if row['passed'] is False else text
