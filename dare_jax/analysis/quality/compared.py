"""The runs beside each other, in the form of the paper's Table 1.

Runs that differ in their seed alone are one model: mean and standard deviation
over its seeds. Differences in AUC to the first model are paired, on the same
rows, seed by seed where seeds agree, with 95 % intervals over users.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from dare_jax.analysis import source as source_lib
from dare_jax.analysis import sources as sources_lib
from dare_jax.analysis.quality import slices
from dare_jax.comparison import bootstrap
from dare_jax.evaluation import metrics
from dare_jax.experiments import run_config

METRICS = ('auc', 'gauc', 'category_gauc', 'logloss', 'accuracy', 'calibration')
REPLICATES = 500
# Where a run lies and what it keeps do not make it another model.
_SAME_MODEL = ('seed', 'data.data_dir', 'data.input', 'checkpoint.', 'runtime.')
_SLICES = 2  # of `slices.of_moments`: item, category in the history or not
_OWN = 'all'


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs of one model, by seed."""

  label: str
  runs: Mapping[int, source_lib.Source]


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Returns the data of the figure, by its name."""
  del output
  made = groups(sources.all)
  predictions = {}
  for source in sources.all:
    tell(f'predicting the test split with {source.label}')
    predictions[source.label] = sources.predictions(source)
  test = sources.test
  length = sources.data.history_length
  moment, _ = np.nonzero(test.real)
  parts = {_OWN: np.ones(len(moment), bool)}
  for part in slices.of_moments(test, sources.store, length)[:_SLICES]:
    for index, name in enumerate(part.names):
      parts[f'{part.title}: {name}'] = part.bin[moment] == index
  drawn: dict[str, Any] = {}
  for name, chosen in parts.items():
    tell(f'resampling {name}')
    rows = np.flatnonzero(chosen)
    drawn[name] = {
      label: bootstrap.replicates(slices.take(of, rows), REPLICATES)
      for label, of in predictions.items()
    }
  return {
    'compared': {
      'base': made[0].label,
      'targets': {name: int(chosen.sum()) for name, chosen in parts.items()},
      'rows': [row(group, made[0], predictions, drawn) for group in made],
    }
  }


def groups(sources: Sequence[source_lib.Source]) -> list[Group]:
  """Returns the models, in the order of their first runs."""
  by_config: dict[str, dict[int, source_lib.Source]] = {}
  for source in sources:
    fields = run_config.flatten(source.config)
    key = str(
      {k: v for k, v in fields.items() if not k.startswith(_SAME_MODEL)}
    )
    own = by_config.setdefault(key, {})
    number = source.config.seed
    if number in own:  # The same run twice, perhaps: each for itself.
      by_config[f'{key} {source.label}'] = {number: source}
    else:
      own[number] = source
  return [Group(_label(list(own.values())), own) for own in by_config.values()]


def _label(runs: Sequence[source_lib.Source]) -> str:
  """Returns what the labels of runs begin with; the label of a single one."""
  if len(runs) == 1:
    return runs[0].label
  common = os.path.commonprefix([run.label for run in runs])
  return common.rstrip('-_/ 0123456789') or runs[0].config.model.name


def row(
  group: Group,
  base: Group,
  predictions: Mapping[str, metrics.Predictions],
  drawn: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, Any]:
  """Returns what the table says of a model.

  Args:
    group: the model that the row describes.
    base: the model that it is compared with.
    predictions: label of a run -> its predictions.
    drawn: slice -> label of a run -> float [replicates], the AUC in each
      resampling.
  """
  reports = [
    predictions[run.label].report().values for run in group.runs.values()
  ]
  found: dict[str, Any] = {
    'model': group.label,
    'seeds': sorted(group.runs),
    'metrics': {},
    'slices': {},
  }
  for name in METRICS:
    values = [report[name] for report in reports if name in report]
    if len(values) == len(reports):
      spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
      found['metrics'][name] = {'mean': float(np.mean(values)), 'std': spread}
  for name, of_runs in drawn.items():
    ours = [of_runs[run.label] for run in group.runs.values()]
    value = float(np.mean([own[0] for own in ours]))
    pairs = _pairs(group, base) if group.label != base.label else []
    difference = None
    if pairs and np.isfinite(value):
      estimate = bootstrap.difference(
        *(
          [of_runs[label] for label in side]
          for side in zip(*pairs, strict=True)
        )
      )
      difference = dataclasses.asdict(estimate)
    found['slices'][name] = {'auc': value, 'difference': difference}
  return found


def _pairs(group: Group, base: Group) -> list[tuple[str, str]]:
  """Returns labels of runs to compare: of equal seeds, else in their order."""
  seeds = sorted({*group.runs} & {*base.runs})
  if seeds:
    return [(group.runs[s].label, base.runs[s].label) for s in seeds]
  both = zip(group.runs.values(), base.runs.values(), strict=False)
  return [(one.label, other.label) for one, other in both]
