"""Runs one benchmark and prints its table.

    python -m dare_jax.bench NAME [flags]

NAME: train, search, recall, kernels, peer, prepare, tree, pod, runs, faults or
memory.
--help after a name shows that benchmark's flags; --output=FILE writes JSON.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import pathlib
import sys
from typing import Any

from absl import flags

from dare_jax import cli
from dare_jax import errors

# Each module offers `define_flags() -> Callable[[], list[row]]`; a row is one
# flat object with units in its keys.
NAMES = (
  'train',
  'search',
  'recall',
  'kernels',
  'peer',
  'prepare',
  'tree',
  'pod',
  'runs',
  'faults',
  'memory',
)


def show(rows: list[dict[str, Any]]) -> str:
  """Returns rows as a table."""
  names = list(rows[0])
  cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.rjust(width) for cell, width in zip(line, widths, strict=True)
    )
    for line in cells
  )


def _defined(row: dict[str, Any]) -> dict[str, Any]:
  """Returns a row with None for what is not defined: JSON has no NaN."""
  return {
    name: None if isinstance(value, float) and math.isnan(value) else value
    for name, value in row.items()
  }


def _cell(value: Any) -> str:
  if value is None:
    return '-'
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  return str(value)


def main() -> None:
  """Dispatches on the first argument."""
  name = sys.argv[1] if len(sys.argv) > 1 else ''
  if name.startswith(('-h', '--h')):
    cli.run(lambda: None)
  if name not in NAMES:
    cli.run(lambda: _unknown(name), sys.argv[:1])
  module = importlib.import_module(f'dare_jax.bench.{name}')
  measure = module.define_flags()
  output = flags.DEFINE_string('output', None, 'Write the rows here as JSON.')

  def run() -> None:
    if output.value:  # Before what may take an hour.
      folder = pathlib.Path(output.value).absolute().parent
      if not os.access(folder, os.W_OK):
        raise errors.UsageError(
          f'--output={output.value}: {folder} is not there, or cannot be'
          ' written; choose another folder.'
        )
    from dare_jax.training import environment

    rows = [_defined(row) for row in measure()]
    print(show(rows))
    if output.value:
      report = {
        'benchmark': name,
        'environment': environment.versions(),
        'rows': rows,
      }
      pathlib.Path(output.value).write_text(json.dumps(report, indent=1))

  default = 'quickstart' if 'config' in flags.FLAGS else None
  cli.run(run, [sys.argv[0], *sys.argv[2:]], default, module.__doc__)


def _unknown(name: str) -> None:
  raise errors.UsageError(
    f'benchmark {name!r}: expected one of {", ".join(NAMES)}.'
  )


if __name__ == '__main__':
  main()
