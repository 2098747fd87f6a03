"""Evaluates a checkpoint of a run.

    python -m dare_jax.evaluate --workdir=DIR [--split=test]
                                [--checkpoint=best|last|STEP]

Prints the metrics and writes DIR/eval_<split>.json.
"""

from __future__ import annotations

import json
import os
from typing import Any

from absl import flags

from dare_jax import cli
from dare_jax import errors
from dare_jax.process import distributed


def evaluate(
  workdir: str | os.PathLike[str],
  split: str = 'test',
  which: str | int = 'best',
) -> dict[str, Any]:
  """Returns the metrics of one checkpoint on one split, and what is left out.

  Args:
    workdir: folder of a run that has saved a checkpoint.
    split: 'train', 'val' or 'test'.
    which: 'best', 'last', or a step.

  Raises:
    UsageError: no run or no such checkpoint there, unknown split.
  """
  from dare_jax.data import splits
  from dare_jax.parallel import processes
  from dare_jax.runs import saved_run

  if split not in splits.NAMES:
    raise errors.UsageError(
      f'--split={split}: expected one of {", ".join(splits.NAMES)}.'
    )
  saved = saved_run.restore(workdir, which)
  processes.in_turn(lambda: saved.experiment.check([split]))
  found = saved.experiment.predict(saved.state, split).report()
  return {
    'checkpoint': str(which),
    'step': saved.step,
    'split': split,
    'metrics': found.values,
    'left_out': found.left_out,
    'code_version': saved.description['code_version'],
    'data_fingerprint': saved.experiment.store.fingerprint,
  }


def main() -> None:
  """Evaluates as the flags say, prints and writes the metrics."""
  if not _WORKDIR.value:
    raise errors.UsageError('--workdir is missing: the folder of a run.')
  workdir = _WORKDIR.value
  distributed.start()
  from dare_jax import storage
  from dare_jax.parallel import processes
  from dare_jax.runs import report

  result = evaluate(workdir, _SPLIT.value, _CHECKPOINT.value)
  if not processes.is_first():
    return
  print(f'{workdir}, step {result["step"]}, {result["split"]}:')
  for name, value in result['metrics'].items():
    print(f'  {name:24}{value:.6f}')
  if result['left_out']:
    print(f'  left out: {report.left_out(result["left_out"])}')
  path = storage.locate(workdir) / f'eval_{result["split"]}.json'
  storage.write(path, json.dumps(result, indent=1).encode())


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a run.')
  _SPLIT = flags.DEFINE_string(
    'split', 'test', 'Split to evaluate: train, val or test.'
  )
  _CHECKPOINT = flags.DEFINE_string(
    'checkpoint', 'best', 'Checkpoint: best, last or STEP.'
  )
  distributed.define_flags()
  cli.run(main)
