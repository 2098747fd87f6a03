"""Runs one benchmark and prints its table.

    python -m dare_jax.bench NAME [flags]

NAME: train, search, recall, kernels, peer, prepare, tree, pod, runs, memory,
serve, predict, information, planted, matches, lead, content or steps.
--help after a name shows that benchmark's flags; --output=FILE writes JSON.
"""

from __future__ import annotations

import importlib
import sys

from dare_jax import cli
from dare_jax import errors
from dare_jax.bench import command

MODULES = {
  'train': 'bench.training.train',
  'search': 'bench.searching.search',
  'recall': 'bench.searching.recall',
  'kernels': 'aot.kernels',
  'peer': 'bench.peer',
  'prepare': 'bench.prepare',
  'tree': 'bench.tree',
  'pod': 'aot.pod',
  'runs': 'bench.runs',
  'memory': 'bench.memory',
  'serve': 'bench.serving.serve',
  'predict': 'bench.bulk',
  'information': 'bench.information',
  'planted': 'bench.planted',
  'matches': 'bench.searching.matches',
  'lead': 'bench.lead',
  'content': 'bench.searching.content',
  'steps': 'bench.training.steps',
}


def main() -> None:
  """Dispatches on the first argument."""
  name = sys.argv[1] if len(sys.argv) > 1 else ''
  if name.startswith(('-h', '--h')):
    cli.run(lambda: None)
  if name not in MODULES:
    cli.run(lambda: _unknown(name), sys.argv[:1])
  module = importlib.import_module(f'dare_jax.{MODULES[name]}')
  command.run(name, module, [sys.argv[0], *sys.argv[2:]])


def _unknown(name: str) -> None:
  raise errors.UsageError(
    f'benchmark {name!r}: expected one of {", ".join(MODULES)}.'
  )


if __name__ == '__main__':
  main()
