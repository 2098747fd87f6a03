"""Evaluates a checkpoint of a run.

    python -m dare_jax.evaluate --workdir=DIR [--split=test]
                                [--checkpoint=best|last|STEP]

Prints the metrics and writes DIR/eval_<split>.json.
"""

from __future__ import annotations

import json
import os
from typing import Any
from typing import TYPE_CHECKING

from absl import flags

from dare_jax import cli
from dare_jax import distributed
from dare_jax import errors

if TYPE_CHECKING:
  from dare_jax.training import experiment
  from dare_jax.training import state


def evaluate(
  workdir: str | os.PathLike[str], split: str = 'test', which: str = 'best'
) -> dict[str, Any]:
  """Returns the metrics of one checkpoint on one split.

  Args:
    workdir: of a run that has saved a checkpoint.
    split: 'train', 'val' or 'test'.
    which: 'best', 'last', or a step.

  Raises:
    UsageError: no run or no such checkpoint there, unknown split.
  """
  from dare_jax.data import splits

  if split not in splits.NAMES:
    raise errors.UsageError(
      f'--split={split}: expected one of {", ".join(splits.NAMES)}.'
    )
  loaded, step, state, description = restore(workdir, which)
  metrics = loaded.predict(state, split).compute()
  return {
    'checkpoint': which,
    'step': step,
    'split': split,
    'metrics': metrics,
    'code_version': description['code_version'],
    'data_fingerprint': loaded.store.fingerprint,
  }


def restore(
  workdir: str | os.PathLike[str], which: str = 'best'
) -> tuple[experiment.Experiment, int, state.TrainState, dict[str, Any]]:
  """Returns an experiment, a step, its state and what was saved beside it.

  Args:
    workdir: of a run that has saved a checkpoint.
    which: 'best', 'last', or a step.

  Raises:
    UsageError: no run or no such checkpoint there.
  """
  from dare_jax.training import checkpoint
  from dare_jax.training import experiment
  from dare_jax.training import lineage
  from dare_jax.training import storage

  config = experiment.load_config(workdir)
  folder = storage.locate(workdir)
  checkpoints = checkpoint.Checkpoints(folder / 'checkpoints', read_only=True)
  step = _step(checkpoints, which, workdir)
  known = lineage.known_before(config, folder, has_begun=True)
  loaded = experiment.load(config, True, known)
  saved, description = checkpoints.restore(
    step, loaded.abstract_state(), loaded.store.fingerprint
  )
  return loaded, step, saved, description


def _step(checkpoints: Any, which: str, workdir: Any) -> int:
  if which.isdigit():
    checkpoints.manager_of(int(which))
    return int(which)
  if which not in ('best', 'last'):
    raise errors.UsageError(
      f'--checkpoint={which}: expected best, last or a step.'
    )
  step = checkpoints.best_step if which == 'best' else checkpoints.last_step
  if step is None:
    raise errors.UsageError(
      f'{workdir}: no {which} checkpoint yet; train first:'
      ' python -m dare_jax.train --workdir=DIR.'
    )
  return step


def main() -> None:
  """Evaluates as the flags say, prints and writes the metrics."""
  if not _WORKDIR.value:
    raise errors.UsageError('--workdir is missing: the folder of a run.')
  workdir = _WORKDIR.value
  distributed.start()
  from dare_jax.parallel import processes
  from dare_jax.training import storage

  result = evaluate(workdir, _SPLIT.value, _CHECKPOINT.value)
  if not processes.is_first():
    return
  print(f'{workdir}, step {result["step"]}, {result["split"]}:')
  for name, value in result['metrics'].items():
    print(f'  {name:24}{value:.6f}')
  path = storage.locate(workdir) / f'eval_{result["split"]}.json'
  storage.write(path, json.dumps(result, indent=1).encode())


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a run.')
  _SPLIT = flags.DEFINE_string('split', 'test', 'train, val or test.')
  _CHECKPOINT = flags.DEFINE_string('checkpoint', 'best', 'best, last or STEP.')
  distributed.define_flags()
  cli.run(main)
