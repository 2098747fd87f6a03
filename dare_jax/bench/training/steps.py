"""What a training step costs, of several configs by turns in one process.

Each config trains on its own log, as `train` does; of every round, a few steps
are timed of one after the other, so that what else the machine does falls on
all alike. A config is a name and its differences from --config:

    python -m dare_jax.bench steps --config=configs/quickstart.py --of=dare \\
      --of="fields data.fields=brand,department"
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import copy
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
from dare_jax.experiments import run_config
from dare_jax.process import runtime
from dare_jax.runs import run as run_lib
from dare_jax.runs import session as session_lib
from dare_jax.training import feed

_Training = tuple[session_lib.Session, feed.Feed]


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = config_flag.define()
  of = flags.DEFINE_multi_string(
    'of',
    [],
    'NAME [FIELD=VALUE ..]: a config, and its differences from --config. May'
    ' be given again; the first is what the others are compared with.',
  )
  at_once = flags.DEFINE_integer('steps', 8, 'Steps of a turn.', lower_bound=1)
  rounds = flags.DEFINE_integer('rounds', 12, 'Turns of each.', lower_bound=1)
  warm = flags.DEFINE_integer('warm', 60, 'Steps of each before.')

  def measure() -> list[dict[str, Any]]:
    """Returns a row for each config."""
    configs = dict(different(config.value, text) for text in of.value)
    if not configs or len(configs) < len(of.value):
      raise errors.UsageError(
        f'--of: expected one config or more, each with a name of its own, as in'
        f' --of=dare --of="narrow model.attention_dim=8"; got {of.value}.'
      )
    runtime.configure(runtime.of_section(config.value.runtime))
    return by_turns(configs, at_once.value, rounds.value, warm.value)

  return measure


def different(
  config: ml_collections.ConfigDict, text: str
) -> tuple[str, ml_collections.ConfigDict]:
  """Returns a name, and a config with the differences of a text.

  >>> from dare_jax.configs import base
  >>> name, config = different(base.get_config(), 'narrow model.top_k=5')
  >>> name, config.model.top_k
  ('narrow', 5)

  Args:
    config: what the differences are from; it stays as it is.
    text: the name, and `FIELD=VALUE` for each difference, spaces between.

  Raises:
    UsageError: an unknown field, or a value that it does not take.
  """
  name, *differences = text.split() or ['']
  made = copy.deepcopy(config)
  known = run_config.flatten(config)
  for difference in differences:
    field, _, value = difference.partition('=')
    if field not in known:
      raise errors.UsageError(
        f'--of="{text}": {field!r}: expected a field of configs/base.py, and'
        ' its value, as in model.top_k=5.'
      )
    several = isinstance(known[field], (list, tuple))
    parts = [plan.parse(part) for part in value.split(',')]
    try:
      own = tuple(parts) if several else plan.parse(value)
      made.update_from_flattened_dict({field: own})
    except (TypeError, ValueError):
      raise errors.UsageError(
        f'--of="{text}": {field}={value} is not of the kind that'
        ' configs/base.py has there.'
      ) from None
  return name, made


def by_turns(
  configs: dict[str, ml_collections.ConfigDict],
  at_once: int,
  rounds: int,
  warm: int,
) -> list[dict[str, Any]]:
  """Returns medians of each config's turns, and ratios to the first config.

  Args:
    configs: name -> the config of a run.
    at_once: number of steps of a turn.
    rounds: number of turns of each config.
    warm: number of steps of each config before the first turn. A step that
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
    rows.append({'config': name, 'step_ms': wall, 'cpu_ms': cpu})
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
