"""From the outcomes of runs to `table.json`: one row a model."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dare_jax.comparison import bootstrap
from dare_jax.comparison import plan
from dare_jax.comparison import runs as runs_lib
from dare_jax.evaluation import metrics
from dare_jax.evaluation import retrieval

METRICS = (
  'auc',
  'gauc',
  'category_gauc',
  'logloss',
  'auc_item_seen',
  'auc_item_unseen',
  retrieval.METRIC,
)
# What predictions tell of the rows themselves, whatever the model.
_OF_ROWS = ('user', 'category', 'label', 'weight')
COSTS = ('examples_per_s', 'train_time_s')

Outcomes = Mapping[pathlib.Path, runs_lib.Outcome]


class Summary:
  """Makes the rows, again after each run; keeps what was expensive."""

  def __init__(
    self, runs: Sequence[plan.PlannedRun], base: str, command: str
  ) -> None:
    """Makes a summary.

    Args:
      runs: all runs of the comparison.
      base: the label of the model that others are compared with.
      command: the command that made the comparison, which the summary shows.
    """
    self._runs = runs
    self._base = base
    self._command = command
    self._tests: dict[pathlib.Path, _Test | None] = {}

  def table(self, outcomes: Outcomes) -> dict[str, Any]:
    """Returns what `table.json` holds."""
    labels = list(dict.fromkeys(run.variant.label for run in self._runs))
    rows = [self._row(label, outcomes) for label in labels]
    results = [outcome.result for outcome in outcomes.values()]
    return {
      'rows': rows,
      'base': self._base,
      'seeds': max(run.seed for run in self._runs),
      'command': self._command,
      'environments': _distinct(
        result['environment'] for result in results if result
      ),
    }

  def _row(self, label: str, outcomes: Outcomes) -> dict[str, Any]:
    own = [run for run in self._runs if run.variant.label == label]
    results = [
      result
      for run in own
      if run.workdir in outcomes and (result := outcomes[run.workdir].result)
    ]
    failed = {
      run.seed: reason
      for run in own
      if run.workdir in outcomes and (reason := outcomes[run.workdir].reason)
    }
    row: dict[str, Any] = {
      'model': label,
      'preset': own[0].variant.preset,
      'changes': dict(own[0].variant.fields),
      'status': _status(len(own), len(results), len(failed)),
      'reason': _one_reason(failed),
      'seeds': len(results),
    }
    row['left_out'] = _left_out(results)
    for name in METRICS:
      values = [r['test'][name] for r in results if name in r['test']]
      # Of all seeds or none: a mean over some would hide the others.
      if values and len(values) == len(results):
        row[name] = _spread(values)
    if label != self._base:
      row |= self._difference(label, outcomes)
    if results:
      row |= {
        name: _spread([result[name] for result in results]) for name in COSTS
      }
      row['parameters'] = results[0]['parameters']
    return row

  def _difference(self, label: str, outcomes: Outcomes) -> dict[str, Any]:
    """The paired difference in AUC to the base, over the seeds of both.

    And the seeds without one, because the two were tested on other rows.
    """
    tests: dict[str, dict[int, _Test]] = {label: {}, self._base: {}}
    for run in self._runs:
      outcome = outcomes.get(run.workdir)
      if run.variant.label in tests and outcome and outcome.result:
        if (test := self._test(run.workdir)) is not None:
          tests[run.variant.label][run.seed] = test
    ours, base = tests[label], tests[self._base]
    both = sorted({*ours} & {*base})
    seeds = [seed for seed in both if ours[seed].rows == base[seed].rows]
    others = [seed for seed in both if seed not in seeds]
    found: dict[str, Any] = {}
    if others:
      told = f'{_named(others)}: tested on other rows than {self._base}'
      found['unpaired'] = told
    if not seeds:
      return found

    def compare(chosen: Sequence[int]) -> dict[str, float]:
      estimate = bootstrap.difference(
        [ours[seed].replicates for seed in chosen],
        [base[seed].replicates for seed in chosen],
      )
      return dataclasses.asdict(estimate)

    by_seed = [{'seed': seed} | compare([seed]) for seed in seeds]
    return found | {'auc_difference': compare(seeds) | {'by_seed': by_seed}}

  def _test(self, workdir: pathlib.Path) -> _Test | None:
    if workdir not in self._tests:
      self._tests[workdir] = _load_test(workdir)
    return self._tests[workdir]


@dataclasses.dataclass(frozen=True)
class _Test:
  """The test of a run: AUC of all draws, and which rows it was on.

  Not which history store: models may read different fields of one log, and
  users and categories have the same numbers in each store of it.
  """

  replicates: np.ndarray
  rows: int


def _load_test(workdir: pathlib.Path) -> _Test | None:
  """None without usable predictions, as those of one class."""
  try:
    predictions = metrics.load(workdir / 'predictions_test.npz')
  except (OSError, ValueError, KeyError):
    return None
  replicates = bootstrap.replicates(predictions)
  if not np.isfinite(replicates).all():
    return None
  shared = [getattr(predictions, name) for name in _OF_ROWS]
  return _Test(replicates, hash(tuple(part.tobytes() for part in shared)))


def _status(planned: int, done: int, failed: int) -> str:
  if failed:
    return 'failed'
  return 'done' if done == planned else 'unfinished'


def _one_reason(failed: Mapping[int, str]) -> str | None:
  parts = []
  for reason in _distinct(failed.values()):
    seeds = [seed for seed, own in failed.items() if own == reason]
    parts.append(f'{_named(seeds)}: {reason}')
  return '; '.join(parts) or None


def _named(seeds: Sequence[int]) -> str:
  word = 'seed' if len(seeds) == 1 else 'seeds'
  return f'{word} {", ".join(map(str, seeds))}'


def _left_out(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
  """Metrics that are not defined in a seed or more, and why."""
  found: dict[str, str] = {}
  for result in results:
    reasons = result.get('left_out', {})  # Older versions gave none.
    for name in METRICS:
      if name in reasons:
        found.setdefault(name, reasons[name])
  return found


def _spread(values: Sequence[float]) -> dict[str, float | None]:
  """Mean, and standard deviation (of a sample) where there is one."""
  deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return {'mean': float(np.mean(values)), 'std': deviation}


def _distinct(values: Any) -> list[Any]:
  found: list[Any] = []
  for value in values:
    if value not in found:
      found.append(value)
  return found
