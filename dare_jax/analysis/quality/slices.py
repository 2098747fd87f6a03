"""Test AUC and calibration by what is known of a moment before its target.

A moment belongs to a bin by its positive: the item that was clicked, or the
first of them. The AUC of a bin is over all targets of its moments.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dare_jax.analysis import resampling
from dare_jax.analysis import sources as sources_lib
from dare_jax.comparison import bootstrap
from dare_jax.evaluation import metrics
from dare_jax.store import history_store

REPLICATES = 200
_QUANTILES = 4
_CURVE_BINS = 10


@dataclasses.dataclass(frozen=True)
class Slices:
  """A partition of the moments into bins.

  Attributes:
    title: the quantity by which the moments are parted.
    names: the names of the bins, in order.
    bin: int [moments], the bin of each; -1 for none.
  """

  title: str
  names: list[str]
  bin: np.ndarray


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Returns the data of the figures about slices, by figure."""
  del output
  test = sources.test
  tell('parting the test split')
  parts = of_moments(test, sources.store, sources.data.history_length)
  moment, _ = np.nonzero(test.real)
  models = {}
  for source in sources.all:
    tell(f'predicting the test split with {source.label}')
    models[source.label] = sources.predictions(source)
  auc: dict[str, Any] = {'slices': []}
  calibration: dict[str, Any] = {'slices': [], 'curves': {}}
  for part in parts:
    tell(f'resampling by {part.title}')
    auc['slices'].append(by_auc(part, moment, models))
    calibration['slices'].append(by_ratio(part, moment, models))
  for label, predictions in models.items():
    calibration['curves'][label] = curve(predictions)
  return {'slices': auc, 'calibration': calibration}


def of_moments(
  test: sources_lib.Targets, store: history_store.HistoryStore, length: int
) -> list[Slices]:
  """Returns the partitions of a split's moments.

  Args:
    test: the targets of the test split.
    store: the store of the log.
    length: number of behaviors that a moment sees at most.
  """
  table = store.behaviors
  offsets = np.asarray(table.offsets)
  first = offsets[test.user]
  seen = np.minimum(test.end - first, length)
  clicked = test.label & test.real
  slot = clicked.argmax(axis=1)
  has_positive = clicked.any(axis=1)
  of_positive = {
    field: values[np.arange(len(slot)), slot]
    for field, values in test.ids.items()
  }
  last = {
    field: _last_seen(
      table.columns[f'{field}_id'], test.end, seen, of_positive[field]
    )
    for field in ('item', 'category')
  }
  time = table.columns['timestamp']
  before = np.maximum(test.end - 1, 0)
  was_seen = has_positive & (last['item'] > 0)
  gap = time[before] - time[np.maximum(test.end - last['item'], 0)]
  popularity = np.bincount(
    table.columns['item_id'], minlength=store.vocab_sizes['item']
  )[of_positive['item']]
  flag = lambda of: np.where(has_positive, np.where(of > 0, 0, 1), -1)
  every = np.ones(len(seen), bool)
  return [
    Slices('item in the history', ['seen', 'not seen'], flag(last['item'])),
    Slices(
      'category in the history', ['seen', 'not seen'], flag(last['category'])
    ),
    _quantiles('time since the item was last seen', gap, was_seen),
    _quantiles('history length', seen, every),
    _quantiles('behaviors of the user', np.diff(offsets)[test.user], every),
    _quantiles('occurrences of the item', popularity, has_positive),
  ]


def _last_seen(
  values: np.ndarray, end: np.ndarray, seen: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
  """Returns the position at which a value occurs last; 0 where it does not."""
  position = np.zeros(len(end), np.int64)
  for back in range(1, int(seen.max(initial=0)) + 1):
    left = np.flatnonzero((position == 0) & (back <= seen))
    if not len(left):
      break
    hit = left[values[end[left] - back] == wanted[left]]
    position[hit] = back
  return position


def _quantiles(title: str, value: np.ndarray, counts: np.ndarray) -> Slices:
  """Parts moments into four bins of about as many; fewer where values tie."""
  found = np.full(len(value), -1)
  if not counts.any():
    return Slices(title, [], found)
  own = value[counts]
  inner = np.arange(1, _QUANTILES) / _QUANTILES
  bounds = np.unique(np.quantile(own, inner, method='lower'))
  bounds = bounds[bounds < own.max()]
  bins = np.searchsorted(bounds, own, side='left')
  found[counts] = bins
  names = []
  for index in range(len(bounds) + 1):
    low, high = own[bins == index].min(), own[bins == index].max()
    names.append(f'{low:,} to {high:,}' if high > low else f'{low:,}')
  return Slices(title, names, found)


def by_auc(
  part: Slices,
  moment: np.ndarray,
  models: Mapping[str, metrics.Predictions],
) -> dict[str, Any]:
  """Returns the AUC of each bin with its interval over users, by model.

  Args:
    part: the bins of the moments.
    moment: int [n], the moment of each target.
    models: label -> predictions [n].
  """
  found: dict[str, Any] = {
    'title': part.title,
    'names': part.names,
    'moments': [int((part.bin == i).sum()) for i in range(len(part.names))],
    'models': {label: [] for label in models},
    'difference': {label: [] for label in list(models)[1:]},
  }
  for index in range(len(part.names)):
    rows = np.flatnonzero(part.bin[moment] == index)
    drawn = {
      label: bootstrap.replicates(take(of, rows), REPLICATES)
      for label, of in models.items()
    }
    base = next(iter(drawn.values()))
    for label, values in drawn.items():
      found['models'][label].append(_estimate(values))
      if label in found['difference']:
        found['difference'][label].append(_estimate(values - base))
  return found


def take(of: metrics.Predictions, rows: np.ndarray) -> metrics.Predictions:
  """Returns the predictions of some rows."""
  return metrics.Predictions(
    of.logit[rows],
    of.label[rows],
    of.weight[rows],
    of.user[rows],
    of.category[rows],
  )


def _estimate(values: np.ndarray) -> dict[str, float] | None:
  """Returns the first value with the interval of the others."""
  if np.isnan(values[0]):
    return None
  low, high = np.nanpercentile(values[1:], [2.5, 97.5])
  return {'mean': float(values[0]), 'low': float(low), 'high': float(high)}


def by_ratio(
  part: Slices,
  moment: np.ndarray,
  models: Mapping[str, metrics.Predictions],
) -> dict[str, Any]:
  """Returns predicted clicks over clicks in each bin, by model."""
  ratios: dict[str, list[float | None]] = {label: [] for label in models}
  for index in range(len(part.names)):
    rows = part.bin[moment] == index
    for label, of in models.items():
      clicks = float(of.label[rows].sum())
      predicted = float(_probability(of.logit[rows]).sum())
      ratios[label].append(predicted / clicks if clicks else None)
  return {'title': part.title, 'names': part.names, 'models': ratios}


def curve(predictions: metrics.Predictions) -> dict[str, Any]:
  """Returns predicted and observed rates of tenths of the targets.

  Tenths go by the predicted probability; 'observed' has intervals over users.
  """
  probability = _probability(predictions.logit)
  order = np.argsort(probability, kind='stable')
  parts = [p for p in np.array_split(order, _CURVE_BINS) if len(p)]
  observed = [
    resampling.mean_interval(
      predictions.label[part].astype(np.float64), predictions.user[part]
    )
    for part in parts
  ]
  return {
    'predicted': [float(probability[part].mean()) for part in parts],
    'observed': observed,
  }


def _probability(logit: np.ndarray) -> np.ndarray:
  return 0.5 * (1.0 + np.tanh(0.5 * logit.astype(np.float64)))
