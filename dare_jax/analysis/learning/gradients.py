"""Do the roles of a shared table agree? Domination and conflict (Figure 3).

From runs with `train.observe_gradients`. Published, for the table of
categories: the ratio of the mean lengths of row gradients, all rows of the
table counted, over the first 100 steps; the share of steps in which the mean
cosine over rows is below 0; and the share of categories that are in conflict in
most of their steps. Here all of that over the whole training as well.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from dare_jax import storage
from dare_jax.analysis import source as source_lib
from dare_jax.analysis import sources as sources_lib
from dare_jax.logs import id_map
from dare_jax.runs import gradient_log
from dare_jax.training.roles import gradient_statistics as statistics_lib

FIRST = 100  # steps that the published figure of domination is of
SHOWN = 8  # categories by name
_SERIES = (
  'attention_norm',
  'representation_norm',
  'attention_row_norm',
  'representation_row_norm',
  'row_cosine',
  'conflict',
)
_SHARE_BINS = 10


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Returns the data of the figure; without runs where none was observed."""
  del output
  models = {}
  for source in sources.all:
    folder = storage.locate(source.workdir)
    seen = gradient_log.load(folder)
    if seen is None:
      continue
    tell(f'reading the gradients of {source.label}')
    models[source.label] = {
      'steps': int(seen['step']),
      'tables': of_run(sources, source, seen),
    }
  return {'gradients': {'first': FIRST, 'models': models}}


def of_run(
  sources: sources_lib.Sources,
  source: source_lib.Source,
  seen: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  """Returns what was seen of each table of a run, the categories' first."""
  specs = source.run.experiment.trainer.trained_tables.specs
  lines = source.metric_lines()
  order = sorted(specs, key=lambda name: specs[name].field != 'category')
  found = {}
  for name in order:
    field = specs[name].field
    counts = None
    if field in sources.store.fields:
      counts = np.bincount(
        sources.store.behaviors.columns[f'{field}_id'],
        minlength=sources.store.vocab_sizes[field],
      )
      sets = source.run.experiment.sets.get(field)
      counts = counts if sets is None else sets.counts(counts)
    sums = np.asarray(seen[f'{name}/sums'], np.float64)
    of = over_steps(lines, name) | {
      'field': field,
      'histograms': of_histograms(seen[f'{name}/histograms']),
      'popularity': by_popularity(sums, counts),
    }
    if field == 'category' and counts is not None and len(sums) == len(counts):
      of['categories'] = by_category(sums, counts, sources.raw('category'))
    found[name] = of
  return found


def over_steps(lines: list[dict[str, Any]], table: str) -> dict[str, Any]:
  """Returns the means of log windows, and of all of them by role.

  Args:
    lines: the lines of metrics.jsonl.
    table: the name of the table.

  Returns:
    'series': 'step' and each of `_SERIES`; 'ratio' and 'row_ratio': how many
    times the representation's gradient is as long; and 'row_ratio_first', the
    latter over the first windows, as published.
  """
  prefix = f'{statistics_lib.PREFIX}/{table}/'
  own = [line for line in lines if f'{prefix}attention_norm' in line]
  steps = np.array([line['step'] for line in own], np.float64)
  weight = np.diff(steps, prepend=0.0)
  series = {
    name: [line.get(f'{prefix}{name}') for line in own] for name in _SERIES
  }

  def ratio(kind: str, chosen: np.ndarray) -> float | None:
    """Returns representation's sum over attention's; None where it has none."""
    if not chosen.any():
      return None
    sums = [
      float((weight * np.array(series[f'{role}_{kind}']))[chosen].sum())
      for role in ('representation', 'attention')
    ]
    return sums[0] / sums[1] if sums[1] else None

  every = np.ones(len(steps), bool)
  return {
    'series': {'step': steps.tolist(), **series},
    'ratio': ratio('norm', every),
    'row_ratio': ratio('row_norm', every),
    'row_ratio_first': ratio('row_norm', steps <= FIRST),
  }


def of_histograms(histograms: np.ndarray) -> dict[str, Any]:
  """Returns steps by cosine, and the share of them below 0, of each kind."""
  half = statistics_lib.BINS // 2
  found: dict[str, Any] = {}
  for name, counts in zip(statistics_lib.HISTOGRAMS, histograms, strict=True):
    total = float(counts.sum())
    found[name] = {
      'counts': [int(count) for count in counts],
      'conflict': float(counts[:half].sum()) / total if total else None,
    }
  return found


def by_popularity(
  sums: np.ndarray, counts: np.ndarray | None
) -> list[dict[str, Any]]:
  """Returns what was seen of ids by how often they occur, powers of two.

  Args:
    sums: float [groups, 5], in the order of `gradient_statistics.OF_GROUPS`.
    counts: int [ids], how often each id occurs in the log; None for a field
      without such counts, as time.
  """
  if counts is None:
    return []
  if len(sums) == len(counts):
    occurs = np.zeros(len(counts), np.int64)
    some = counts > 0
    occurs[some] = np.floor(np.log2(counts[some])).astype(np.int64) + 1
    grouped = np.zeros((int(occurs.max()) + 1, sums.shape[1]))
    np.add.at(grouped, occurs, sums)
    sums = grouped
  found = []
  for group, (steps, conflicts, _, attention, other) in enumerate(sums):
    if steps and group:
      found.append(
        {
          'from': 1 << (group - 1),
          'steps': float(steps),
          'conflict': float(conflicts / steps),
          'ratio': float(other / attention) if attention else None,
        }
      )
  return found


def by_category(
  sums: np.ndarray, counts: np.ndarray, name: Callable[[int], str]
) -> dict[str, Any]:
  """Returns how many categories are in conflict in most of their steps.

  Args:
    sums: float [categories, 5], in the order of
      `gradient_statistics.OF_GROUPS`.
    counts: int [categories], how often each category occurs in the log.
    name: gives the name of a category by its id.
  """
  steps = sums[:, 0]
  some = np.flatnonzero(steps[id_map.FIRST :]) + id_map.FIRST
  share = sums[some, 1] / steps[some]
  bins, _ = np.histogram(share, np.linspace(0, 1, _SHARE_BINS + 1))
  frequent = some[np.argsort(-counts[some], kind='stable')[:SHOWN]]
  return {
    'number': len(some),
    'mostly': float(np.mean(share > 0.5)) if len(some) else None,
    'shares': bins.tolist(),
    'frequent': [
      {
        'name': name(int(i)),
        'events': int(counts[i]),
        'conflict': float(sums[i, 1] / steps[i]),
        'ratio': float(sums[i, 4] / sums[i, 3]) if sums[i, 3] else None,
      }
      for i in frequent
    ],
  }
