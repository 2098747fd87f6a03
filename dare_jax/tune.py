"""Finds good values of config fields: a sweep by Optuna over ordinary runs.

    python -m dare_jax.tune --config=... --space=FILE --trials=N [--output=DIR]
                            [--config.a.b=v ...]

FILE (TOML, JSON or YAML) says what may be chosen:

    optim.learning_rate = {low = 0.001, high = 0.1, log = true}
    model.top_k = {low = 10, high = 50, step = 10}
    optim.tables = ["lazy_adam", "row_adagrad"]

Every trial is a fresh `python -m dare_jax.train` in DIR/runs/trial-NUMBER,
judged by validation alone, and given up early if it does worse than others did.
The first has the config's own values. DIR/trials.json is made anew after each
one, DIR/importance.png at the end. The same command goes on where it was
stopped.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from dare_jax import cli
from dare_jax import config_flag
from dare_jax import errors
from dare_jax import plots

_METRICS = ('auc', 'gauc', 'category_gauc', 'logloss')
_SAMPLERS = ('tpe', 'random')
_PRUNERS = ('median', 'halving', 'none')
_OWN_FLAGS = (
  'space', 'trials', 'output', 'workdir', 'parallel', 'metric', 'sampler',
  'pruner',
)  # fmt: skip


def main() -> None:
  """Tunes as the flags say, and prints the table."""
  output = _output()
  if not _SPACE.value:
    raise errors.UsageError('--space is missing: the file of what is chosen.')
  for package in ('optuna', 'sqlalchemy', 'sklearn'):
    if importlib.util.find_spec(package) is None:
      raise errors.UsageError(
        f'a sweep needs {package}: {errors.install("tune")}.'
      )
  from dare_jax import storage
  from dare_jax.comparison import children
  from dare_jax.comparison import runs as runs_lib
  from dare_jax.tuning import figure
  from dare_jax.tuning import space
  from dare_jax.tuning import study as study_lib
  from dare_jax.tuning import sweep
  from dare_jax.tuning import table

  stop = children.Stop()
  stop.install()
  config = _CONFIG.value
  space.check(config)
  fields = space.read(pathlib.Path(_SPACE.value), config)
  choice = study_lib.Choice(
    fields, _METRIC.value, _SAMPLER.value, _PRUNER.value
  )
  arguments = cli.without(sys.argv[1:], _OWN_FLAGS)
  planned = sweep.Plan(
    config, arguments, output, _TRIALS.value, _PARALLEL.value
  )
  command = f'python -m dare_jax.tune {shlex.join(sys.argv[1:])}'
  with children.alone(output, stop, 'tuning') as inherited:
    study = study_lib.Study(output, config, choice)
    if study.count_ended() < planned.trials:
      runs_lib.check([config.model.name], arguments, stop, inherited)

    def write() -> None:
      content = json.dumps(table.found(study, planned, command), indent=1)
      storage.write(storage.locate(output / 'trials.json'), content.encode())

    sweep.Sweep(planned, study, stop, inherited).run(write)
  found = table.found(study, planned, command)
  with storage.told(storage.locate(output / 'importance.png')):
    figure.draw(found, output / 'importance.png')
  if not plots.can_draw():
    print(figure.MISSING, file=sys.stderr)
  print(table.text(found))
  print(f'\neverything is in {output}')
  reasons = [row.get('reason') for row in found['trials']]
  if reasons and all(reasons):
    raise errors.UsageError(f'every trial failed: {reasons[0]}')


def _output() -> pathlib.Path:
  """Returns the folder of the sweep."""
  if _OUTPUT.value and '://' in _OUTPUT.value:
    raise errors.UsageError(
      f'--output={_OUTPUT.value}: a sweep is made on a disk; give a folder'
      ' there.'
    )
  path = config_flags.get_config_filename(flags.FLAGS['config'])
  name = pathlib.Path(path.split(':')[0]).stem
  default = f'runs/{name}-{_CONFIG.value.model.name}-tuned'
  return pathlib.Path(_OUTPUT.value or default).expanduser()


if __name__ == '__main__':
  _CONFIG = config_flag.define()
  _SPACE = flags.DEFINE_string('space', None, 'File of fields to choose.')
  _TRIALS = flags.DEFINE_integer(
    'trials', 20, 'Trials of the sweep in all, however they end.', lower_bound=1
  )
  _OUTPUT = flags.DEFINE_string(
    'output',
    None,
    'Folder of the sweep, on a disk; default'
    ' runs/<config>-<model>-tuned. Also --workdir.',
  )
  flags.DEFINE_alias('workdir', 'output')
  _PARALLEL = flags.DEFINE_integer(
    'parallel', 1, 'Trials at a time, which share the devices.', lower_bound=1
  )
  _METRIC = flags.DEFINE_enum(
    'metric', 'auc', _METRICS, 'Of validation, that the best trial has best.'
  )
  _SAMPLER = flags.DEFINE_enum(
    'sampler',
    'tpe',
    _SAMPLERS,
    'How Optuna draws: by what it has seen, or not.',
  )
  _PRUNER = flags.DEFINE_enum(
    'pruner', 'median', _PRUNERS, 'How Optuna gives up trials early.'
  )
  cli.run(main, default_config='quickstart')
