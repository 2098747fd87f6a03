"""What do runs cost, and how fast do they learn? (Figures 7 and 11)

Training curves and lengths are those that runs have logged. The time of a
search is measured here: from ready keys of one batch of test histories, as a
server has them, the least of some calls.
"""

from __future__ import annotations

from collections.abc import Callable
import itertools
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from dare_jax import models
from dare_jax.analysis import source as source_lib
from dare_jax.analysis import sources as sources_lib
from dare_jax.training import state_summary

_CALLS = 5
_MOMENTS = 64
_CURVES = ('train/loss', 'train/accuracy', 'val/auc')
JUDGE = 'val/auc'


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Returns the data of the figure, by its name."""
  del output
  found = {}
  rows = np.arange(min(_MOMENTS, len(sources.test.user)))
  batch = next(itertools.islice(sources.test_batches(moments=rows), 1))
  for source in sources.all:
    tell(f'timing the search of {source.label}')
    found[source.label] = of_run(source) | {
      'search_us': search_time(source, batch),
      'auc': sources.predictions(source).report().values.get('auc'),
    }
  curves = [of['curves'].get(JUDGE) for of in found.values()]
  best = [max(c['value']) for c in curves if c]
  threshold = min(best) if best and len(best) == len(found) else None
  for of in found.values():
    of['reached'] = reached(of['curves'].get(JUDGE), threshold)
  return {
    'efficiency': {
      'threshold': threshold,
      'targets': int(np.sum(batch.targets.weight)),
      'length': int(batch.history.mask.shape[1]),
      'models': found,
    }
  }


def of_run(source: source_lib.Source) -> dict[str, Any]:
  """Returns a run's curves, widths, parameters and training time so far."""
  lines = source.metric_lines()
  curves = {}
  for name in _CURVES:
    own = [line for line in lines if name in line]
    if own:
      curves[name] = {
        'step': [line['step'] for line in own],
        'time_s': [line['time_s'] for line in own],
        'value': [line[name] for line in own],
      }
  parts = source.run.experiment
  state = parts.abstract_state()
  content = source.run.model.config.content
  result = json.loads(source.read('result.json') or b'{}')
  last = lines[-1]['time_s'] if lines else None
  return {
    'model': source.config.model.name,
    'attention_dim': sum(f.attention_dim for f in content),
    'representation_dim': sum(f.representation_dim for f in content),
    'parameters': state_summary.count_parameters(
      state, parts.trainer.trained_tables
    ),
    'train_time_s': result.get('train_time_s', last),
    'curves': curves,
  }


def search_time(source: source_lib.Source, batch: Any) -> float:
  """Returns the microseconds of a search for one target, keys being ready."""
  batch = source.run.experiment.batch_as_read(batch)

  def search(module: models.Ranker, keys: Any, batch: Any) -> Any:
    """Returns indices, scores and mask of what a search finds."""
    found = module.search(keys, batch)
    return found.indices, found.scores, found.mask

  run = source.run
  call = lambda method: jax.jit(
    lambda variables, *args: run.model.apply(variables, *args, method=method)
  )
  keys = call('encode_history')(run.variables, batch.history)
  program, times = call(search), []
  for _ in range(1 + _CALLS):
    begin = time.perf_counter()
    jax.block_until_ready(program(run.variables, keys, batch))
    times.append(time.perf_counter() - begin)
  targets = batch.targets.label.size
  return 1e6 * min(times[1:]) / targets


def reached(
  curve: dict[str, list[float]] | None, threshold: float | None
) -> dict[str, float] | None:
  """Returns when a curve first reached a threshold.

  Args:
    curve: 'step', 'time_s' and 'value' of each point; None: there is no curve.
    threshold: the value to reach; None: there is none.

  Returns:
    'step' and 'time_s' of the first point at the threshold or above; None if
    no point is.
  """
  if curve is None or threshold is None:
    return None
  for step, seconds, value in zip(
    curve['step'], curve['time_s'], curve['value'], strict=True
  ):
    if value >= threshold:
      return {'step': step, 'time_s': seconds}
  return None
