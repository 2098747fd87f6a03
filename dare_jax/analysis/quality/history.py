"""How much history does a run need? Test AUC by its length and by k.

A trained checkpoint is evaluated again with shorter histories, and with other
numbers of behaviors that the search keeps; nothing is trained anew. Of many
test users some are drawn, the same for all runs, and differences to the run's
own setting are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dare_jax import models
from dare_jax import trained
from dare_jax.analysis import forward
from dare_jax.analysis import sources as sources_lib
from dare_jax.comparison import bootstrap
from dare_jax.evaluation import metrics

REPLICATES = 200
_MOST_MOMENTS = 6_000
_SHORTEST = 10
_KEPT = (1, 2, 5, 10, 20, 50, 100, 200)


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Returns the data of the figure, by its name."""
  del output
  chosen = moments_of(sources.test.user)
  length = int(sources.data.history_length)
  shorter = lengths(length)
  found: dict[str, Any] = {}
  for source in sources.all:
    own = source.run.model.config.top_k
    of_length, of_kept = {}, {}
    for number in shorter:
      tell(f'{source.label} with histories of {number}')
      # What is shorter than the search's list is kept whole.
      run = with_top_k(source.run, min(own, number))
      of_length[number] = _predict(sources, run, chosen, number)
    for number in kept(source.run.model.config, length):
      if number != own:
        tell(f'{source.label} with {number} behaviors kept')
        other = with_top_k(source.run, number)
        of_kept[number] = _predict(sources, other, chosen, length)
      else:
        of_kept[number] = of_length[length]
    found[source.label] = {
      'top_k': own,
      'length': compared(of_length, length),
      'kept': compared(of_kept, own),
    }
  return {
    'history': {
      'moments': len(chosen),
      'of_moments': len(sources.test.user),
      'length': length,
      'models': found,
    }
  }


def moments_of(user: np.ndarray) -> np.ndarray:
  """Returns the moments of users drawn at random, as many as time allows."""
  if len(user) <= _MOST_MOMENTS:
    return np.arange(len(user))
  users = np.random.default_rng(0).permutation(np.unique(user))
  counts = np.bincount(user)[users]
  kept_users = users[np.cumsum(counts) <= _MOST_MOMENTS]
  return np.flatnonzero(np.isin(user, kept_users))


def lengths(length: int) -> list[int]:
  """Returns the lengths to try, ascending: halves of the whole one.

  >>> lengths(200)
  [12, 25, 50, 100, 200]
  """
  found = [length]
  while found[-1] // 2 >= _SHORTEST:
    found.append(found[-1] // 2)
  return found[::-1]


def kept(config: models.RankerConfig, length: int) -> list[int]:
  """Returns the numbers of behaviors to keep; none where all are kept."""
  if config.search == 'all':
    return []
  numbers = {number for number in _KEPT if number < length}
  return sorted({*numbers, config.top_k})


def with_top_k(run: trained.Trained, number: int) -> trained.Trained:
  """Returns a run whose search keeps another number of behaviors."""
  config = dataclasses.replace(run.model.config, top_k=number)
  return dataclasses.replace(run, model=models.Ranker(config))


def _predict(
  sources: sources_lib.Sources,
  run: trained.Trained,
  chosen: np.ndarray,
  length: int,
) -> metrics.Predictions:
  batches = sources.test_batches(length, chosen)
  test = sources.test
  real = test.real[chosen]
  logit = forward.logits(run, batches)
  return metrics.Predictions(
    logit=logit,
    label=test.label[chosen][real],
    weight=np.ones(len(logit)),
    user=test.user[chosen][np.nonzero(real)[0]],
    category=test.ids['category'][chosen][real],
  )


def compared(
  predictions: dict[int, metrics.Predictions], own: int
) -> dict[str, Any]:
  """Returns the AUC of each setting, and its difference to the run's own.

  Args:
    predictions: setting -> predictions; all are of the same targets.
    own: the setting that the run was trained with.
  """
  numbers: Sequence[int] = list(predictions)
  drawn = {
    number: bootstrap.replicates(of, REPLICATES)
    for number, of in predictions.items()
  }
  found: dict[str, Any] = {'number': numbers, 'auc': [], 'difference': []}
  for number in numbers:
    if np.isnan(drawn[number][0]):
      found['auc'].append(None)
      found['difference'].append(None)
      continue
    found['auc'].append(float(drawn[number][0]))
    estimate = bootstrap.difference([drawn[number]], [drawn[own]])
    found['difference'].append(dataclasses.asdict(estimate))
  return found
