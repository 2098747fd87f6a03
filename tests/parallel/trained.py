"""Test AUC of whole trainings on several devices or processes, as a table.

    JAX_PLATFORMS=cpu python -m tests.parallel.trained --folder=DIR

On a made log with 63,000 test scores, for every place a training of its own:
devices made of this CPU, and real processes over loopback. Beside them one
device whose learning rate is a millionth higher, or lower; what that moves the
AUC by is no fault of the mesh. With --float64, which is for one process,
devices alone. DIR keeps what is done: the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import itertools
import json
import os
import pathlib
import subprocess
import sys

from tests.parallel import parity

_LAUNCHER = pathlib.Path(__file__).parents[2] / 'launch' / 'local.sh'
_DEVICES = '--xla_force_host_platform_device_count'
_RATE = 0.003
_FIELDS = {
  'data.num_users': 21_000,
  'data.events_per_user': 100,
  'data.min_history': 20,
  'data.min_events': 40,
  'data.max_train_moments': 40,
  'data.history_length': 50,
  'model.attention_dims.category': 16,
  'model.representation_dims.category': 16,
  'model.top_k': 20,
  'optim.learning_rate': _RATE,
  'optim.row_sparse_from': 1_000,
  'train.epochs': 0.25,
  'train.batch_size': 1_368,
  'eval.every_steps': 0,
  'checkpoint.every_steps': 0,
}


def train(
  workdir: pathlib.Path,
  devices: int,
  processes: int,
  fields: dict[str, object],
  module: str,
) -> None:
  """Trains to the end, or goes on, or does nothing if that is done."""
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  flags = [f'--workdir={workdir}', '--config=configs/synthetic.py', *flags]
  command = [sys.executable, '-m', module]
  if processes > 1:
    command = [str(_LAUNCHER), str(processes)]
  subprocess.run(
    [*command, *flags],
    env=os.environ
    | {'XLA_FLAGS': f'{_DEVICES}={devices}', 'PYTHON': sys.executable},
    stdout=subprocess.DEVNULL,
    check=True,
  )


def places(
  chosen: argparse.Namespace,
) -> Iterator[tuple[str, int, int, dict[str, object]]]:
  """Yields the name of each place, its devices and processes, and fields."""
  yield '1 device', 1, 1, {}
  if not chosen.float64:
    for sign in (1, -1):
      rate = {'optim.learning_rate': _RATE * (1 + sign * 1e-6)}
      yield f'1 device, rate {sign:+d}e-6', 1, 1, rate
  for count in chosen.devices:
    yield f'{count} devices', count, 1, {}
  for count in chosen.processes:
    yield f'{count} processes', 1, count, {}


def main(flags: list[str]) -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parity.add_places(parser)
  parser.add_argument('--float64', action='store_true')
  chosen = parser.parse_args(flags)
  if chosen.float64 and chosen.processes:
    parser.error('--float64 is for one process: give --processes= as well')
  module = 'tests.parallel.wide' if chosen.float64 else 'dare_jax.train'
  print('test AUC, less that of one device, and validation AUC')
  for model, tables in itertools.product(chosen.models, chosen.tables):
    one = None
    for name, devices, processes, fields in places(chosen):
      workdir = chosen.folder / f'{model} {tables} {name}'.replace(' ', '-')
      fields = {'model.name': model, 'optim.tables': tables} | fields
      train(workdir, devices, processes, _FIELDS | fields, module)
      result = json.loads((workdir / 'result.json').read_text())
      auc = result['test']['auc']
      one = auc if one is None else one
      print(
        f'{model:5} {tables:10} {name:28} {auc:.4f}'
        f' {auc - one:+.6f} {result["val"]["auc"]:.4f}',
        flush=True,
      )


if __name__ == '__main__':
  main(sys.argv[1:])
