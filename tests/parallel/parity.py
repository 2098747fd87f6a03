"""Losses of several devices or processes against those of one, as a table.

    JAX_PLATFORMS=cpu python -m tests.parallel.parity
    JAX_PLATFORMS=cpu python -m tests.parallel.parity --float32

Every model, with tables by rows and whole, on 2, 4 and 8 devices made of this
CPU and on 2 and 4 real processes over loopback. Beside them one device that
gets the windows of each batch in another order: the same sums, rounded
otherwise. What that differs by is no fault of the mesh.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import json
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np

from dare_jax.evaluation import metrics
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import state as train_state
from tests.models import examples

VOCAB = {'item': 300, 'category': 9}
MODELS = ('dare', 'twin', 'eta', 'sdim')
TABLES = ('lazy_adam', 'adam')


def trainer(
  devices: list[Any], preset: str = 'dare', **optim: Any
) -> train_state.Trainer:
  """Returns a trainer of a small model on these devices."""
  options = {'row_sparse_from': 100, 'tables': 'lazy_adam'} | optim
  model = examples.build(preset, vocab_sizes=VOCAB)
  mesh = mesh_lib.make(devices)
  return train_state.Trainer(model, examples.optim(**options), 100, mesh)


def batch_of(seed: int, windows: int = 8, turned: bool = False) -> Any:
  """Windows, one of them without targets, as if it filled the batch."""
  batch = examples.make_batch(seed, windows=windows, vocab=VOCAB)
  weight = batch.targets.weight.at[-1].set(0.0).at[2, 1].set(0.0)
  batch = batch.replace(targets=batch.targets.replace(weight=weight))
  return jax.tree.map(lambda x: x[::-1], batch) if turned else batch


def train(
  made: train_state.Trainer,
  steps: int,
  wide: bool = False,
  windows: int = 8,
  turned: bool = False,
) -> tuple[Any, list[float]]:
  """Returns the state and the losses; in float64, call it under that."""
  widen = examples.to_float64 if wide else lambda tree: tree
  batches = [widen(batch_of(seed, windows, turned)) for seed in range(5)]
  state, found = made.init(0, batches[0]), []
  if wide:
    shardings = jax.tree.map(lambda x: x.sharding, state)
    state = jax.jit(examples.to_float64, out_shardings=shardings)(state)
  placed = [mesh_lib.place(made.mesh, _own_part(batch)) for batch in batches]
  for step in range(steps):
    state, loss = made.train_step(state, placed[step % 5])
    found.append(float(loss))
  return state, found


def _own_part(batch: Any) -> Any:
  """Returns this process's windows."""
  number, count = jax.process_index(), jax.process_count()
  return jax.tree.map(lambda x: np.split(np.asarray(x), count)[number], batch)


def losses(
  devices: list[Any], chosen: argparse.Namespace, turned: bool = False
) -> dict[str, list[float]]:
  """Returns the losses of every case."""
  found = {}
  for preset in chosen.models:
    for tables in chosen.tables:
      made = trainer(devices, preset, tables=tables)
      with jax.enable_x64(not chosen.float32):
        _, found[f'{preset} {tables}'] = train(
          made,
          chosen.steps,
          wide=not chosen.float32,
          windows=64 if chosen.float32 else 8,
          turned=turned,
        )
  return found


def metrics_of_all(num_batches: int = 4, rows: int = 24) -> dict[str, float]:
  """Returns the metrics of fixed scores that all processes have a share of."""
  rng = np.random.default_rng(0)

  def draw() -> metrics.Predictions:
    return metrics.Predictions(
      logit=rng.integers(-9, 9, rows) / 7,
      label=rng.integers(0, 2, rows),
      weight=rng.choice([0.0, 1.0, 3.0], rows),
      user=rng.integers(0, 9, rows),
      category=rng.integers(0, 5, rows),
    )

  share = np.split(np.arange(rows), jax.process_count())[jax.process_index()]
  parts = [
    jax.tree.map(lambda array: array[share], draw()) for _ in range(num_batches)
  ]
  return metrics.merge(metrics.of_all_processes(parts)).compute()


def of_processes(
  count: int, flags: list[str]
) -> tuple[dict[str, list[float]], dict[str, float]]:
  """Returns losses of every case and metrics of fixed scores.

  Each of the real processes has its part of the windows, and of the scores.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  command = [sys.executable, '-m', 'tests.parallel.parity', *flags]
  processes = [
    subprocess.Popen(
      [*command, f'--worker={port},{count},{number}'],
      stdout=subprocess.PIPE,
      text=True,
    )
    for number in range(count)
  ]
  texts = [process.communicate()[0] for process in processes]
  codes = [process.returncode for process in processes]
  if any(codes):
    raise RuntimeError(f'{count} processes exited with {codes}: {texts}')
  made, measured = json.loads(texts[0].splitlines()[-1])
  return made, measured


def rows(chosen: argparse.Namespace, flags: list[str]) -> Iterator[Any]:
  """Yields (case, what trains, the largest difference of each fifth)."""
  one = losses(jax.devices()[:1], chosen)
  for case, own in one.items():
    # The same batch of five, later: it has been learned from.
    assert chosen.steps <= 5 or own[-1] < own[(chosen.steps - 1) % 5], case
  turned = losses(jax.devices()[:1], chosen, turned=True)
  yield from _compare('1 device, windows turned round', turned, one)
  for count in chosen.devices:
    made = losses(jax.devices()[:count], chosen)
    yield from _compare(f'{count} devices', made, one)
  for count in chosen.processes:
    made, measured = of_processes(count, flags)
    own = metrics_of_all()
    worst = max(abs(measured[name] - value) for name, value in own.items())
    yield 'metrics', f'{count} processes', [worst]
    yield from _compare(f'{count} processes', made, one)


def _compare(who: str, found: Any, one: Any) -> Iterator[Any]:
  for case, own in found.items():
    gap = np.abs(np.subtract(own, one[case]))
    yield case, who, [float(part.max()) for part in np.array_split(gap, 5)]


def options(flags: list[str]) -> argparse.Namespace:
  """Returns what to train, from the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  add_places(parser)
  parser.add_argument('--steps', type=int)
  parser.add_argument('--float32', action='store_true')
  parser.add_argument('--worker', help='port,processes,number')
  chosen = parser.parse_args(flags)
  chosen.steps = chosen.steps or (5 if chosen.float32 else 50)
  return chosen


def add_places(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that say what trains, and where."""
  words = lambda text: [word for word in text.split(',') if word]
  numbers = lambda text: [int(word) for word in words(text)]
  parser.add_argument('--models', type=words, default=MODELS)
  parser.add_argument('--tables', type=words, default=TABLES)
  parser.add_argument('--devices', type=numbers, default=[2, 4, 8])
  parser.add_argument('--processes', type=numbers, default=[2, 4])


def main(flags: list[str]) -> None:
  chosen = options(flags)
  if chosen.worker:
    port, count, number = map(int, chosen.worker.split(','))
    jax.distributed.initialize(f'127.0.0.1:{port}', count, number)
    print(json.dumps([losses(jax.devices(), chosen), metrics_of_all()]))
    return
  jax.config.update('jax_num_cpu_devices', max([1, *chosen.devices]))
  part = chosen.steps // 5
  print(f'largest difference of the loss in {part} steps, five times')
  for case, who, gaps in rows(chosen, flags):
    cells = '  '.join(f'{gap:8.1e}' for gap in gaps)
    print(f'{case:16}  {who:31}  {cells}', flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
