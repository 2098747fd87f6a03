"""What a training step costs, of several models by turns in one process.

Each model trains on its own log, as `train` does; of every round, a few steps
are timed of one after the other, so that what else the machine does falls on
all alike. Models are given as `compare` takes them, and may differ in any
field:

    python -m dare_jax.bench steps --config=configs/quickstart.py \\
      --models=dare,fields=dare:data.fields=brand+department
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import io
import pathlib
import statistics
import tempfile
import time
from typing import Any

from absl import flags
import jax
import ml_collections

from dare_jax import config_flag
from dare_jax import errors
from dare_jax.comparison import plan
from dare_jax.process import runtime
from dare_jax.runs import run as run_lib
from dare_jax.runs import session as session_lib
from dare_jax.training import feed

_Training = tuple[session_lib.Session, feed.Feed]


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = config_flag.define()
  models = flags.DEFINE_list(
    'models',
    None,
    'Presets, or LABEL=PRESET:FIELD=VALUE, with commas; the first is what the'
    ' others are compared with.',
  )
  at_once = flags.DEFINE_integer('steps', 8, 'Steps of a turn.', lower_bound=1)
  rounds = flags.DEFINE_integer('rounds', 12, 'Turns of each.', lower_bound=1)
  warm = flags.DEFINE_integer('warm', 60, 'Steps of each before.')

  def measure() -> list[dict[str, Any]]:
    """Returns a row for each model."""
    configs = configs_of(config.value, models.value or [])
    runtime.configure(runtime.of_section(config.value.runtime))
    return by_turns(configs, at_once.value, rounds.value, warm.value)

  return measure


def configs_of(
  config: ml_collections.ConfigDict, entries: Sequence[str]
) -> dict[str, ml_collections.ConfigDict]:
  """Returns the config of each model, by its label.

  >>> from dare_jax.configs import base
  >>> made = configs_of(base.get_config(), ['dare', 'narrow=dare:top_k=5'])
  >>> {label: own.model.top_k for label, own in made.items()}
  {'dare': 20, 'narrow': 5}

  Args:
    config: what the models differ from; it stays as it is.
    entries: the models, as `--models` of `compare` has them.

  Raises:
    UsageError: no model, an unknown field, or a value that it does not take.
  """
  made = {}
  for variant in plan.parse_models(entries):
    made[variant.label] = variant.apply(config, config.seed)
    variant.check(made[variant.label])
  if not made:
    raise errors.UsageError(
      '--models is missing: expected one model or more, with commas, as in'
      ' --models=dare,narrow=dare:attention_dim=8.'
    )
  return made


def by_turns(
  configs: dict[str, ml_collections.ConfigDict],
  at_once: int,
  rounds: int,
  warm: int,
) -> list[dict[str, Any]]:
  """Returns medians of each model's turns, and ratios to the first model.

  Args:
    configs: label of a model -> the config of its run.
    at_once: number of steps of a turn.
    rounds: number of turns of each model.
    warm: number of steps of each model before the first turn. A step that
      compiles later makes its turn long, but not the median.
  """
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    trainings: dict[str, _Training] = {}
    for name, config in configs.items():
      own = pathlib.Path(folder) / str(len(trainings))
      trainings[name] = _start(stack, config, own)
      _train(trainings[name], warm)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in configs}
    for _ in range(rounds):
      for name, training in trainings.items():
        taken = _train(training, at_once)
        turns[name].append((taken[0] / at_once, taken[1] / at_once))
  rows: list[dict[str, Any]] = []
  for name, times in turns.items():
    wall, cpu = (1e3 * statistics.median(x) for x in zip(*times, strict=True))
    rows.append({'model': name, 'step_ms': wall, 'cpu_ms': cpu})
  for row in rows:
    row['ratio'] = row['step_ms'] / rows[0]['step_ms']
    row['cpu_ratio'] = row['cpu_ms'] / rows[0]['cpu_ms']
  return rows


def _start(
  stack: contextlib.ExitStack,
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
) -> _Training:
  """Returns a run that has not trained yet, and its batches."""
  with contextlib.redirect_stdout(io.StringIO()):
    run = run_lib.Run(config, str(folder))
    stack.enter_context(contextlib.closing(run))
    session = run.restore_or_init()
  session.compile()
  return session, stack.enter_context(session.batches())


def _train(training: _Training, steps: int) -> tuple[float, float]:
  """Trains some steps; returns the seconds, and those of all processors."""
  session, batches = training
  start, spent = time.perf_counter(), time.process_time()
  with session.timed():
    for _ in range(steps):
      session.step(batches)
    jax.block_until_ready(session.state)
  return time.perf_counter() - start, time.process_time() - spent
