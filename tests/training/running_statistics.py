"""Rules for running statistics, against statistics of the training set.

    python -m tests.training.running_statistics --batch_sizes=8

trains once for each batch size, and after some steps predicts the validation
split: by the statistics of many training rows under the weights of that step,
and by those that each rule has averaged up to there. Training does not depend
on the rule, so that all are of the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dare_jax import layers
from dare_jax.experiments import experiment
from dare_jax.training import state as train_state

# Of one batch: head -> mean and variance; and its rows.
Statistics = Mapping[str, tuple[np.ndarray, np.ndarray]]
_NORM = 'BatchNorm_0'
# Batches that exact statistics are of, and their moments.
_EXACT = (20, 683)


@dataclasses.dataclass
class Rule:
  """Averages the statistics of batches.

  Attributes:
    keep: share that a step keeps; None: by rows.
    horizon: of rows, at most.
    recent: share of the rows seen that count, at most.
    from_start: begin with mean 0 and variance 1, and leave out how far the
      means of batches lie apart, as batch normalisation commonly does.
  """

  keep: float | None = None
  horizon: float = np.inf
  recent: float = 1.0
  from_start: bool = False
  seen: float = 0.0
  held: dict[str, Any] = dataclasses.field(default_factory=dict)

  def add(self, batch: Statistics, rows: float) -> None:
    """Takes one more batch."""
    self.seen += rows
    window = max(rows, min(self.horizon, self.recent * self.seen))
    weight = rows / window if self.keep is None else 1 - self.keep
    for head, (mean, var) in batch.items():
      fresh = (np.zeros_like(mean), np.ones_like(var))
      old_mean, old_var = self.held.get(
        head, fresh if self.from_start else (mean, var)
      )
      apart = np.square(mean - old_mean) * (0 if self.from_start else 1)
      self.held[head] = (
        old_mean + weight * (mean - old_mean),
        old_var + weight * (var - old_var) + weight * (1 - weight) * apart,
      )


def _rules() -> dict[str, Rule]:
  horizon = layers.HORIZON
  return {
    '0.9 of each step': Rule(keep=0.9, from_start=True),
    'all rows': Rule(),
    'last 20,490 rows': Rule(horizon=horizon),
    'last tenth': Rule(recent=0.1),
    'last fifth, 20,490 rows': Rule(horizon=horizon, recent=0.2),
    'last tenth, 20,490 rows': Rule(horizon=horizon, recent=0.1),
    'last tenth, 5,000 rows': Rule(horizon=5_000, recent=0.1),
  }


class _Run:
  """A training whose every step leaves the statistics of its batch."""

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    self.experiment = experiment.load(config)
    self.state = self.experiment.init_state()
    self._fresh = jax.tree.map(np.asarray, self.state.batch_stats)
    model = self.experiment.trainer.model
    self._measure = jax.jit(
      lambda variables, batch: model.apply(
        variables, batch, train=True, mutable=['batch_stats']
      )[1]['batch_stats']
    )

  def step(self, batch: Any) -> tuple[Statistics, float]:
    """Trains; returns what the batch says."""
    # Without rows before, statistics are those of the batch.
    state = dataclasses.replace(self.state, batch_stats=self._fresh)
    self.state, _ = self.experiment.trainer.train_step(state, batch)
    return _read(self.state.batch_stats)

  def exact(self) -> Statistics:
    """Returns statistics of training rows under the weights of now."""
    tables = self.experiment.trainer.tables
    variables = {
      'params': self.state.params,
      'tables': {'encoder': tables.by_id(self.state.tables['encoder'])},
      'constants': self.state.constants,
      'batch_stats': self._fresh,
    }
    rule, (count, size) = Rule(), _EXACT
    for number in range(count):
      batch = self.experiment.pipelines['train'].train_batch(number, size)
      rule.add(*_read(self._measure(variables, batch)))
    return rule.held

  def loss(self, statistics: Statistics) -> float:
    """Returns the validation loss by some statistics."""
    found = {
      head: {
        _NORM: {
          'mean': jnp.float32(mean),
          'var': jnp.float32(var),
          'count': self._fresh[head][_NORM]['count'],
        }
      }
      for head, (mean, var) in statistics.items()
    }
    state: train_state.TrainState = dataclasses.replace(
      self.state, batch_stats=found
    )
    return self.experiment.predict(state, 'val').compute()['logloss']


def _read(batch_stats: Any) -> tuple[Statistics, float]:
  norms = {
    head: jax.device_get(held[_NORM]) for head, held in batch_stats.items()
  }
  found = {
    head: (np.float64(norm['mean']), np.float64(norm['var']))
    for head, norm in norms.items()
  }
  return found, float(norms['head']['count'])


def measure(config: ml_collections.ConfigDict, after: list[int]) -> None:
  """Prints a row for each of some steps."""
  run, rules = _Run(config), _rules()
  with run.experiment.train_batches(0) as batches:
    for step in range(1, max(after) + 1):
      found = run.step(batches.next().batch)
      for rule in rules.values():
        rule.add(*found)
      if step not in after:
        continue
      cells = [f'{config.train.batch_size}', f'{found[1]:.0f}', f'{step}']
      cells.append(f'{run.loss(run.exact()):.4f}')
      cells += [f'{run.loss(rule.held):.4f}' for rule in rules.values()]
      print(f'| {" | ".join(cells)} |', flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--config', default='synthetic')
  parser.add_argument('--batch_sizes', default='8,342')
  parser.add_argument('--after', default='50,400')
  parser.add_argument('--moments_per_window', type=int)
  flags = parser.parse_args()
  numbers = lambda text: [int(part) for part in text.split(',')]
  module = importlib.import_module(f'dare_jax.configs.{flags.config}')
  head = ['moments', 'rows', 'step', 'exact', *_rules()]
  print(f'| {" | ".join(head)} |')
  print('|---' * len(head) + '|')
  for size in numbers(flags.batch_sizes):
    config = module.get_config()
    config.train.batch_size = size
    if flags.moments_per_window:
      config.train.moments_per_window = flags.moments_per_window
    config.train.steps = max(numbers(flags.after))
    measure(config, numbers(flags.after))


if __name__ == '__main__':
  main()
