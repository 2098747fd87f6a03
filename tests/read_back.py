"""What a run read back must do: predict what the run predicted."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from dare_jax import evaluate
from dare_jax import trained


def check(
  run: trained.Trained, workdir: pathlib.Path, result: Mapping[str, Any]
) -> None:
  """Fails where logits or metrics of the test split are not the run's.

  Args:
    run: of the workdir, read back.
    workdir: of the finished run.
    result: of the run.
  """
  apply = jax.jit(run.model.apply)
  config = run.experiment.config.eval
  logits = []
  for item in run.experiment.pipelines['test'].eval_batches(
    config.batch_size, config.drop_last
  ):
    real = item.batch.targets.weight > 0
    logits.append(np.asarray(apply(run.variables, item.batch).logits)[real])
  with np.load(workdir / 'predictions_test.npz') as saved:
    expected = saved['logit']
  assert expected.std() > 0.01
  np.testing.assert_allclose(
    np.concatenate(logits), expected, rtol=1e-5, atol=1e-5
  )
  evaluated = evaluate.evaluate(workdir)['metrics']
  assert evaluated == pytest.approx(result['test'], rel=1e-6, nan_ok=True)
