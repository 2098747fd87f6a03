"""What compilers have said of our programs: kept, and compared with.

`figures.json` has, for each target, the compiler's version and its figures.
Tests that compile anyway compare theirs with those, within 5 %, and with
`DARE_JAX_FIGURES=write` write them instead, where a change is meant:

    DARE_JAX_FIGURES=write python -m pytest -n 0 tests/aot
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
import json
import os
import pathlib
from typing import Any

import pytest

_PATH = pathlib.Path(__file__).with_name('figures.json')
_WITHIN = 0.05
# Below it a figure may change by as much: a buffer more or less.
_LEAST_MB = 0.1
# Known where the assembler of GPUs is, which no package for compiling brings.
_OF_PTXAS = {'registers', 'spill_bytes'}
# Figures of rows of `bench pod` and `bench kernels`.
_FIGURES = (
  *('state_and_batch_mb', 'arguments_mb', 'temporary_mb', 'moved_mb'),
  *('all_to_all_mb', 'other_collectives_mb', 'bytes_accessed_mb'),
  *('table_copies', 'registers', 'spill_bytes', 'bundles'),
)


def compiler_of(topology: str) -> str:
  """Returns the name and version of what compiles for a topology.

  Args:
    topology: such as v5e:2x4, or h100:1x1x8.
  """
  is_gpu = topology.startswith(('a100', 'b200', 'h100', 'h200'))
  name = 'jax-cuda13-pjrt' if is_gpu else 'libtpu'
  return f'{name} {metadata.version(name)}'


def compare(name: str, row: Mapping[str, Any]) -> None:
  """Fails where a figure is not within 5 % of the one that is kept.

  Skips the test where none is kept of this version of the compiler.

  Args:
    name: of the target, and of what makes the row its own.
    row: of `bench pod` or `bench kernels`.
  """
  compiler = compiler_of(row['topology'])
  own = {key: row[key] for key in _FIGURES if row.get(key) is not None}
  kept = json.loads(_PATH.read_text()) if _PATH.exists() else {}
  if os.environ.get('DARE_JAX_FIGURES') == 'write':
    kept[name] = {'compiler': compiler, **own}
    _PATH.write_text(json.dumps(kept, indent=1, sort_keys=True) + '\n')
    return
  expected = dict(kept.get(name, {}))
  known = expected.pop('compiler', 'none')
  if known != compiler:
    pytest.skip(f'{name}: figures are of {known}, the compiler is {compiler}')
  found = differences(own, expected)
  assert not found, f'{name}: figure -> (now, kept): {found}'


def differences(
  own: Mapping[str, float], expected: Mapping[str, float]
) -> dict[str, tuple[float | None, float]]:
  """Returns what differs: figure -> its value, or None, and the one kept.

  Args:
    own: figures now; without those of the assembler where it is missing.
    expected: the figures kept.
  """
  unknown = _OF_PTXAS - own.keys()
  return {
    key: (own.get(key), value)
    for key, value in expected.items()
    if key not in unknown
    and (
      key not in own
      or abs(own[key] - value) > max(_WITHIN * abs(value), _LEAST_MB)
    )
  }
