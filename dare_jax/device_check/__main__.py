"""Checks a machine with a GPU or a TPU, in under ten minutes.

    python -m dare_jax.device_check --output=device.json --table=device.md

Are answers on the device those of the CPU, and how fast are training, search
and scores? Each part runs in a process of its own, in its share of the time;
a part that fails, hangs or crashes is told, and the others run. What is known
is written after each part. Exit code 0: all that was tested holds; 1: not so.

It needs jax, flax, optax, orbax-checkpoint, chex and numpy; where torch is
installed, PyTorch's search is timed as well, and, with --checkout, the official
code's training.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
from typing import Any

from absl import flags

from dare_jax import cli
from dare_jax import errors
from dare_jax.device_check import parts
from dare_jax.device_check import reporting
from dare_jax.device_check import stand_in
from dare_jax.device_check import table

_OUTPUT = flags.DEFINE_string('output', None, 'Write all rows here, as JSON.')
_TABLE = flags.DEFINE_string('table', None, 'Write tables here, as Markdown.')
_PARTS = flags.DEFINE_list(
  'parts', list(parts.SECONDS), 'Parts to run, in this order.'
)
_MINUTES = flags.DEFINE_float(
  'minutes', 9.5, 'Time for all parts together.', lower_bound=0.1
)
_SMALL = flags.DEFINE_bool(
  'small', False, 'Sizes for a CPU, to try the check out.'
)
_CHECKOUT = flags.DEFINE_string(
  'checkout', None, 'A checkout of github.com/thuml/DARE, to be timed as well.'
)


def main() -> None:
  """Runs the parts, and exits with 1 where one of them failed.

  Raises:
    UsageError: an unknown part, or a file that cannot be written.
  """
  for name in _PARTS.value:
    if name not in parts.SECONDS:
      raise errors.UsageError(
        f'--parts={name}: expected some of {", ".join(parts.SECONDS)}.'
      )
  for flag in (_OUTPUT, _TABLE):
    _check_folder(flag)
  stand_in.for_annotations()
  with tempfile.TemporaryDirectory() as folder:
    rows = pathlib.Path(folder) / 'rows.jsonl'

    def tell(ended: list[parts.Ended]) -> None:
      """Prints and writes the results after each part."""
      found = reporting.read(rows)
      last = ended[-1]
      print(table.show([last], found), '\n', flush=True)
      if _OUTPUT.value:
        report = _report(ended, found)
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(report, indent=1))
      if _TABLE.value:
        pathlib.Path(_TABLE.value).write_text(table.show(ended, found) + '\n')

    ended = parts.run(
      _PARTS.value, _MINUTES.value, _SMALL.value, _CHECKOUT.value, rows, tell
    )
  failed = [end.part for end in ended if end.status != 'done']
  print(
    f'failed: {", ".join(failed)}' if failed else 'all that is tested holds'
  )
  sys.exit(1 if failed else 0)


def _check_folder(flag: Any) -> None:
  if flag.value is None:
    return
  folder = pathlib.Path(flag.value).absolute().parent
  if not os.access(folder, os.W_OK):
    raise errors.UsageError(
      f'--{flag.name}={flag.value}: {folder} is not there, or cannot be'
      ' written; choose another folder.'
    )


def _report(
  ended: list[parts.Ended], rows: list[dict[str, Any]]
) -> dict[str, Any]:
  """Returns what the JSON file holds."""
  machine = [row for row in rows if row['part'] == 'machine']
  return {
    'benchmark': 'device_check',
    'environment': {
      'device': machine[0]['case'] if machine else None,
      **{row['measure']: row['value'] for row in machine},
    },
    'parts': [vars(end) for end in ended],
    'rows': rows,
  }


if __name__ == '__main__':
  cli.run(main)
