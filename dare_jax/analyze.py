"""Analyses trained runs: one report, with its numbers as JSON.

    python -m dare_jax.analyze --runs=DIR,DIR --output=DIR [--only=NAME,NAME]

Writes OUTPUT/report.html, and OUTPUT/FIGURE.json and OUTPUT/FIGURE.png of each
figure. Reads each run's best checkpoint, its last where none is best yet, also
while it trains. What has not changed is not measured again.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys
import time

from absl import flags

from dare_jax import cli
from dare_jax import errors


def main() -> None:
  """Analyses as the flags say, and says where the report is."""
  if not _RUNS.value:
    raise errors.UsageError('--runs is missing: folders of runs, with commas.')
  if not _OUTPUT.value:
    raise errors.UsageError("--output is missing: the report's folder.")
  if '://' in _OUTPUT.value:
    raise errors.UsageError(
      f'--output={_OUTPUT.value}: a report is made on a disk; give a folder'
      ' there.'
    )
  for module in ('matplotlib', 'sklearn'):
    if importlib.util.find_spec(module) is None:
      raise errors.UsageError(
        f'{module} is not installed; {errors.install("analysis")}.'
      )
  from dare_jax.analysis import catalogue
  from dare_jax.analysis import runner
  from dare_jax.analysis import sources

  begin = time.monotonic()

  def tell(text: str) -> None:
    seconds = time.monotonic() - begin
    print(f'{seconds:6.0f} s  {text}', file=sys.stderr, flush=True)

  analyses = catalogue.choose(_ONLY.value)
  found = sources.locate(_RUNS.value)
  output = pathlib.Path(_OUTPUT.value).expanduser()
  print(runner.run(found, analyses, output, tell))


if __name__ == '__main__':
  _RUNS = flags.DEFINE_list('runs', None, 'Folders of runs, with commas.')
  _OUTPUT = flags.DEFINE_string('output', None, 'Folder of the report.')
  _ONLY = flags.DEFINE_list('only', [], 'Analyses to make; default all.')
  cli.run(main)
