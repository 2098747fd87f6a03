"""Compares models over several seeds on your data, in one table.

    python -m dare_jax.compare --config=... --models=a,b,c --seeds=N
                               --output=DIR [--base=NAME] [--config.a.b=v ...]

A model is a preset, or LABEL=PRESET with config fields of its own, those of the
section model without its name:

    --models=dare,narrow=dare:attention_dim=8:optim.learning_rate=0.005

A field of several values has a plus between them, match_fields=item+category
or data.fields=brand+price. Fields that decide which rows are tested, such as
data.split, are the same for all models (--config.data.split=...).

Every run is a fresh `python -m dare_jax.train` in DIR/runs/LABEL-SEED. After
each one, DIR/table.md, DIR/table.json and DIR/comparison.png are made anew. The
same command goes on where it was stopped; finished runs are not repeated.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import sys

from absl import flags

from dare_jax import cli
from dare_jax import config_flag
from dare_jax import errors
from dare_jax import plots

_OWN_FLAGS = ('models', 'seeds', 'output', 'base')


def main() -> None:
  """Compares as the flags say, and prints the table."""
  from dare_jax import storage
  from dare_jax.comparison import children
  from dare_jax.comparison import figure
  from dare_jax.comparison import plan
  from dare_jax.comparison import runs as runs_lib
  from dare_jax.comparison import summary
  from dare_jax.comparison import table

  if not _MODELS.value:
    raise errors.UsageError('--models is missing: presets, with commas.')
  if not _OUTPUT.value:
    raise errors.UsageError("--output is missing: the comparison's folder.")
  stop = children.Stop()
  stop.install()
  variants = plan.parse_models(_MODELS.value)
  labels = [variant.label for variant in variants]
  base = _BASE.value or labels[0]
  if base not in labels:
    raise errors.UsageError(
      f'--base={base}: not among --models.{plan.hint(base, labels)}'
    )
  if '://' in _OUTPUT.value:
    raise errors.UsageError(
      f'--output={_OUTPUT.value}: a comparison is made on a disk; give'
      ' a folder there.'
    )
  output = pathlib.Path(_OUTPUT.value).expanduser()
  runs = plan.plan(_CONFIG.value, variants, _SEEDS.value, output)
  command = f'python -m dare_jax.compare {shlex.join(sys.argv[1:])}'
  made = summary.Summary(runs, base, command)

  def write(outcomes: summary.Outcomes) -> None:
    """Writes table, JSON and figure of the outcomes so far."""
    found = made.table(outcomes)
    path = output / 'comparison.png'
    with storage.told(path):
      has_figure = figure.draw(found, path)
    page = table.markdown(found, has_figure)
    for name, content in (
      ('table.md', page),
      ('table.json', json.dumps(found, indent=1)),
    ):
      storage.write(storage.locate(output / name), content.encode())

  if not plots.can_draw():
    print(figure.MISSING, file=sys.stderr)
  arguments = cli.without(sys.argv[1:], _OWN_FLAGS)
  outcomes = runs_lib.run_all(runs, arguments, output, stop, write)
  print(table.text(made.table(outcomes)))
  print(f'\neverything is in {output}')
  reasons = [outcome.reason for outcome in outcomes.values()]
  if all(reasons):
    raise errors.UsageError(f'every run failed: {reasons[0]}')


if __name__ == '__main__':
  _CONFIG = config_flag.define()
  _MODELS = flags.DEFINE_list(
    'models', None, 'Presets, or LABEL=PRESET:FIELD=VALUE, with commas.'
  )
  _SEEDS = flags.DEFINE_integer(
    'seeds', 3, 'Runs of each model, with the seeds 1 to this.', lower_bound=1
  )
  _OUTPUT = flags.DEFINE_string('output', None, 'Folder of the comparison.')
  _BASE = flags.DEFINE_string(
    'base', None, 'Model to compare the others with; default the first.'
  )
  cli.run(main, default_config='quickstart')
