"""The gradients of both roles, as a run logs and saves them.

A line of `metrics.jsonl` for each log window, `gradients/TABLE/NAME`; and
`gradients.npz`, with what was seen since the training began. Both follow from
the training state, so a resumed run leaves no gap and no repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
import io
from typing import Any
import zipfile

from etils import epath
import jax
import numpy as np

from dare_jax import errors
from dare_jax import storage
from dare_jax.evaluation import metrics
from dare_jax.parallel import processes
from dare_jax.training import state as train_state
from dare_jax.training.roles import gradient_statistics

FILE = 'gradients.npz'


def of_window(sums: Mapping[str, Any], trainer: Any) -> metrics.Report | None:
  """Returns the means of a log window; None where nothing is observed."""
  if not trainer.observes_gradients:
    return None
  names = trainer.trained_tables.specs
  return metrics.Report(gradient_statistics.summarize(sums, names), {})


def save(state: train_state.TrainState, folder: epath.Path, step: int) -> None:
  """Writes what was seen up to a step, if anything is observed.

  Args:
    state: the training state at the step.
    folder: the workdir of the run.
    step: number of the step.

  Raises:
    UsageError: it cannot be written.
  """
  seen = state.seen
  if seen is None or not processes.is_first():
    return
  arrays: dict[str, Any] = {'step': np.asarray(step)}
  for part in ('sums', 'histograms'):
    for name, values in jax.device_get(getattr(seen, part)).items():
      arrays[f'{name}/{part}'] = values
  content = io.BytesIO()
  np.savez(content, **arrays)
  storage.write(folder / FILE, content.getvalue())


def load(folder: epath.Path) -> dict[str, np.ndarray] | None:
  """Returns the arrays of `save` by name; None where there is no such file.

  Returns:
    'step'; and for each table 'TABLE/sums', float32 [groups, 5], as
    `gradient_statistics.OF_GROUPS`, and 'TABLE/histograms', float32 [2, bins],
    as `gradient_statistics.HISTOGRAMS`.

  Raises:
    UsageError: it is damaged.
  """
  path = folder / FILE
  content = storage.read(path)
  if content is None:
    return None
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise errors.UsageError(
      f'{path} is damaged ({error}); take up the run again with its command,'
      ' which writes it anew, or leave the run out.'
    ) from None
