"""Trains a ranker: prepares the data, trains, validates, tests.

    python -m dare_jax.train [--config=configs/X.py[:arg]] [--workdir=DIR]
                             [--config.a.b=v ...]

Without --config: the quickstart, DARE on grocery purchases. The same command
with the same workdir resumes; SIGTERM and Ctrl-C save and exit with 75.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags

from dare_jax import cli
from dare_jax import config_flag
from dare_jax import errors
from dare_jax.process import distributed
from dare_jax.process import numerics
from dare_jax.process import runtime
from dare_jax.process import signals
from dare_jax.runs import interrupt
from dare_jax.runs import report


@numerics.of_runs()
def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  stop: interrupt.StopSignal,
) -> dict[str, Any]:
  """Runs, or resumes, a whole training; returns what `result.json` holds.

  Args:
    config: a config with the fields of `configs/base.py`.
    workdir: a folder, on a disk or in a bucket; takes config.json,
      metrics.jsonl, result.json, predictions_test.npz, checkpoints/ and
      tensorboard/.
    stop: notes SIGTERM and SIGINT.

  Raises:
    UsageError: bad config or data, another run's workdir, diverged loss.
    Stopped: a signal came; everything is saved.
  """
  from dare_jax.runs import run as run_lib  # Starts JAX's import.

  with contextlib.ExitStack() as stack:
    with stop.at_once():
      run = run_lib.Run(config, workdir)
      stack.enter_context(contextlib.closing(run))
      if (result := run.finished()) is not None:
        return result
      session = run.restore_or_init()
    session.compile()
    try:
      with session.batches() as batches, session.timed():
        while True:
          # Evaluate and save before the next batch is taken: what is restored
          # here then goes on with exactly the step that would have come next.
          done = session.progress.step >= run.total_steps
          evaluate = done or session.is_due('eval')
          if evaluate:
            session.validate(stop.check)
          if evaluate or session.is_due('checkpoint'):
            session.save()
          stop.check()
          if done:
            break
          session.cluster()
          session.step(batches)
          if session.is_due('log'):
            session.log()
      return session.finish(stop.check)
    except errors.Stopped:
      session.save()
      raise


def main() -> None:
  """Trains as the flags say and prints the result."""
  config = _CONFIG.value
  stop = interrupt.StopSignal()
  stop.install()
  runtime.configure(runtime.of_section(config.runtime))
  signals.watch()
  distributed.start()
  flag = flags.FLAGS['config']
  path = config_flags.get_config_filename(flag)
  name = pathlib.Path(path.split(':')[0]).stem
  default = f'runs/{name}-{config.model.name}-{config.seed}'
  workdir = _WORKDIR.value or default
  result = train_and_evaluate(config, workdir, stop)
  import jax

  if jax.process_index() == 0:
    overrides = config_flags.get_override_values(flag)
    print(report.summary(result, workdir, path, overrides))


if __name__ == '__main__':
  _CONFIG = config_flag.define()
  _WORKDIR = flags.DEFINE_string(
    'workdir',
    None,
    'Run folder, on a disk or gs://BUCKET/..; default'
    ' runs/<config>-<model>-<seed>.',
  )
  distributed.define_flags()
  cli.run(main, default_config='quickstart')
