"""A log, configs and runs so small that a whole run takes a second."""

from collections.abc import Callable
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import ml_collections
import numpy as np

from dare_jax import cli
from dare_jax import train
from dare_jax.checkpoints import checkpoint
from dare_jax.configs import base
from dare_jax.experiments import run_config
from dare_jax.runs import interrupt
from dare_jax.runs import run as run_lib

# What depends on the clock, on being interrupted, or on the revision of the
# code, which may be committed while tests run, and on nothing else.
CLOCK_METRICS = ('time_s', 'train/examples_per_s')
CLOCK_RESULTS = (
  'examples_per_s',
  'train_time_s',
  'resumed_from',
  'environment',
)

# Those of the base config that are tuned are named here as well, so that the
# tests stand still.
FIELDS = {
  'data.name': 'csv_log',
  'data.history_length': 20,
  'data.min_history': 5,
  'data.min_events': 10,
  'model.top_k': 5,
  'model.attention_dim': 4,
  'model.representation_dim': 4,
  'model.hidden': (8,),
  'model.aux_hidden': (8,),
  'model.attention_init': 0.1,
  'model.representation_init': 0.1,
  'optim.learning_rate': 0.01,
  'optim.schedule': 'constant',
  'train.batch_size': 32,
  'train.steps': 8,
  'train.log_every_steps': 3,
  'eval.every_steps': 4,
  'eval.batch_size': 50,
  'checkpoint.every_steps': 3,
  'runtime.tune_malloc': False,
}


def write_log(path: pathlib.Path, num_users: int = 60) -> pathlib.Path:
  """Writes a log in which users have a favourite category."""
  rng = np.random.default_rng(0)
  rows = ['user_id,item_id,category_id,timestamp']
  for user in range(num_users):
    favourite = rng.integers(10)
    for time in range(30):
      for _ in range(rng.integers(1, 4)):
        item = rng.integers(100)
        if rng.random() < 0.8:
          item = 10 * (item // 10) + favourite
        rows.append(f'u{user},i{item},c{item % 10},{time}')
  path.write_text('\n'.join(rows) + '\n')
  return path


def config(root: pathlib.Path, **fields: Any) -> ml_collections.ConfigDict:
  """A config for the log in `root`; fields as `train__steps=5`."""
  made = base.get_config()
  made.update_from_flattened_dict(FIELDS)
  made.data.input = str(root / 'log.csv')
  made.data.data_dir = str(root / 'data')
  made.runtime.compilation_cache = os.environ.get(
    'JAX_COMPILATION_CACHE_DIR', str(root / 'cache')
  )
  for name, value in fields.items():
    made.update_from_flattened_dict({name.replace('__', '.'): value})
  return made


def flags(made: ml_collections.ConfigDict) -> list[str]:
  """The command line of a config."""
  names = [*FIELDS, 'data.input', 'data.data_dir', 'runtime.compilation_cache']
  values = {
    name: made[name.split('.')[0]][name.split('.')[1]] for name in names
  }
  return [f'--config.{name}={value}' for name, value in values.items()]


class StopAtCheck(interrupt.StopSignal):
  """Behaves as if SIGTERM came before the n-th check, counted from 1."""

  def __init__(self, number: int) -> None:
    super().__init__()
    self._left = number

  def check(self) -> None:
    self._left -= 1
    if self._left == 0:
      self.requested = True
    super().check()


def run(
  made: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  stop: interrupt.StopSignal | None = None,
) -> dict[str, Any]:
  return train.train_and_evaluate(made, workdir, stop or interrupt.StopSignal())


def refusal(main: Callable[[], Any], capsys: Any) -> str:
  """Runs a command's main; returns the one line of its error."""
  capsys.readouterr()
  try:
    cli.run(main, ['command'])
  except SystemExit as stopped:
    assert stopped.code == 2
  else:
    raise AssertionError('was not refused')
  lines = capsys.readouterr().err.splitlines()
  lines = [line for line in lines if not line.startswith('preparing ')]
  assert len(lines) == 1, lines
  assert lines[0].startswith('error: ')
  return lines[0]


def metric_lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def restore(
  made: ml_collections.ConfigDict, workdir: pathlib.Path
) -> tuple[Any, dict[str, Any]]:
  """The newest checkpoint of a finished run: state and description."""
  opened = run_lib.Run(made, workdir)
  template = opened.experiment.abstract_state()
  opened.close()
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints')
  try:
    restored = checkpoints.restore_last(
      template, opened.experiment.store.fingerprint
    )
  finally:
    checkpoints.close()
  assert restored is not None
  return restored


def assert_same_bits(left: Any, right: Any) -> None:
  """Two pytrees of arrays agree bit for bit."""
  pairs, others = (
    jax.tree_util.tree_leaves_with_path(tree) for tree in (left, right)
  )
  assert [path for path, _ in pairs] == [path for path, _ in others]
  for (path, one), (_, other) in zip(pairs, others, strict=True):
    one, other = np.asarray(one), np.asarray(other)
    assert one.dtype == other.dtype, path
    assert one.tobytes() == other.tobytes(), path


def assert_same_run(
  made: ml_collections.ConfigDict,
  left: pathlib.Path,
  right: pathlib.Path,
  but: tuple[str, ...] = (),
) -> None:
  """Two finished runs: state, best, metrics and result, the clock aside.

  Args:
    made: the config of the second.
    left: a workdir.
    right: another.
    but: keys of the result that may differ.
  """
  without = _without(CLOCK_METRICS)
  assert [without(line) for line in metric_lines(left)] == [
    without(line) for line in metric_lines(right)
  ]
  without = _without((*CLOCK_RESULTS, *but))
  results = [
    without(json.loads((workdir / 'result.json').read_text()))
    for workdir in (left, right)
  ]
  assert results[0] == results[1]
  other, _ = restore(made, right)
  state, _ = restore(run_config.load(left), left)
  assert_same_bits(state, other)


def start(
  command: str, made: ml_collections.ConfigDict, *arguments: str
) -> subprocess.Popen:
  """Starts one of the package's commands in a process of its own.

  Args:
    command: such as 'train'.
    made: the config, on the tiny log.
    *arguments: further flags, which override those of the config.
  """
  words = [sys.executable, '-m', f'dare_jax.{command}']
  words += ['--config=configs/csv_log.py', *flags(made)]
  return subprocess.Popen(
    [*words, *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _without(names: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
  return lambda line: {k: v for k, v in line.items() if k not in names}
