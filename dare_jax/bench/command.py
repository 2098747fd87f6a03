"""What all benchmarks share: their table on screen, and the same as JSON."""

from __future__ import annotations

import json
import math
import os
import pathlib
from types import ModuleType
from typing import Any

from absl import flags

from dare_jax import cli
from dare_jax import errors


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


def run(name: str, module: ModuleType, argv: list[str]) -> None:
  """Runs one benchmark as a command, and exits.

  Args:
    name: the name of the benchmark, which its JSON repeats.
    module: offers `define_flags() -> Callable[[], list[row]]`; a row is one
      flat object with units in its keys. Its docstring is the help.
    argv: the program and its flags.
  """
  measure = module.define_flags()
  output = flags.DEFINE_string('output', None, 'Write the rows here as JSON.')

  def measure_and_show() -> None:
    """Measures, prints the table and writes the JSON."""
    if output.value:  # Before what may take an hour.
      folder = pathlib.Path(output.value).absolute().parent
      if not os.access(folder, os.W_OK):
        raise errors.UsageError(
          f'--output={output.value}: {folder} is not there, or cannot be'
          ' written; choose another folder.'
        )
    from dare_jax.runs import environment

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
  cli.run(measure_and_show, argv, default, module.__doc__)
