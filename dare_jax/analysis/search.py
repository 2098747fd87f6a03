"""The search of each run, measured in one pass over the training rows."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.analysis import attention_maps
from dare_jax.analysis import cases as cases_lib
from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import planted
from dare_jax.analysis import planted_information
from dare_jax.analysis import search_quality
from dare_jax.analysis import sources as sources_lib
from dare_jax.evaluation import retrieval
from dare_jax.logs import id_map
from dare_jax.logs.builders import synthetic

_TOLD_EVERY = 100


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Returns the data of the figures about search, by figure.

  Args:
    sources: the runs whose searches are compared.
    tell: prints a line of progress.
    output: the folder of the report, not used: this analysis writes no further
      files.

  Raises:
    UsageError: no target category has enough training rows, or all runs
      search over clusters of behaviors, which have no position.
  """
  del output
  sources, left_out = _searching(sources, tell)
  rows, histories = sources.test.rows(), sources.histories
  lists = _lists(sources, tell)
  tell('making the training rows')
  training = sources.training_rows
  targets = _targets(training.target)
  quality = search_quality.Quality(lists, rows, histories)
  cases = cases_lib.Cases(quality, rows.label)
  maps, noise = attention_maps.Maps(), information.Significance()
  truth = retrieval.truth_of(sources.store)
  cells_of_truth = None if truth is None else _planted(truth, sources)
  for number, cells in enumerate(
    information.sweep(histories, training, targets)
  ):
    if number % _TOLD_EVERY == 0:
      tell(f'counting category {number + 1} of {len(targets)}')
    for seen in quality.visit(cells):
      cases.visit(seen)
    maps.visit(cells)
    noise.visit(cells)
    if cells_of_truth is not None:
      cells_of_truth.visit(cells)
  tell('comparing with attention')
  about: dict[str, Any] = {
    'num_training_rows': len(training.target),
    'num_targets': len(targets),
    'length': histories.length,
    'left_out': left_out,
    'tested_cells': noise.cells,
    'informative': noise.share(),
  }
  found = {
    'search_quality': about | quality.data(),
    'attention_maps': maps.data(sources, sources.raw('category')),
    'search_cases': {
      'labels': sources.labels,
      'keep': quality.keep,
      'cases': cases.data(sources, lists, rows),
    },
  }
  if truth is not None and cells_of_truth is not None:
    curves = planted.search_curves(truth, lists, rows, histories, quality.keep)
    found['planted'] = cells_of_truth.data() | {'models': curves}
  return {name: data for name, data in found.items() if data is not None}


def _searching(
  sources: sources_lib.Sources, tell: Callable[[str], None]
) -> tuple[sources_lib.Sources, list[str]]:
  """Returns the runs that search over behaviors, and labels of the others."""
  chosen = sources.without_clusters()
  if chosen is None:
    raise errors.UsageError(
      'analysis search: each of the runs searches over clusters, which have no'
      ' position in a history; leave it out with --only, or add other runs.'
    )
  left_out = [label for label in sources.labels if label not in chosen.labels]
  if left_out:
    tell(f'without {", ".join(left_out)}: a search over clusters')
  return chosen, left_out


def _planted(
  truth: synthetic.Truth, sources: sources_lib.Sources
) -> planted.Cells:
  share, length = sources.planted_share, sources.histories.length
  implied = planted_information.expected(truth, share, length)
  return planted.Cells(truth, implied)


def _targets(target: np.ndarray) -> np.ndarray:
  """Returns the target categories with enough training rows."""
  counts = np.bincount(target)
  targets = np.flatnonzero(counts >= search_quality.MIN_ROWS)
  targets = targets[targets >= id_map.FIRST]
  if not len(targets):
    raise errors.UsageError(
      'analysis search: no target category has'
      f' {search_quality.MIN_ROWS} training rows (the most frequent one has'
      f' {int(counts.max(initial=0))}); use a larger log, or leave it out with'
      ' --only.'
    )
  return targets


def _lists(
  sources: sources_lib.Sources, tell: Callable[[str], None]
) -> dict[str, forward.Arrays]:
  lists = {}
  for source in sources.all:
    tell(f'searching the test split with {source.label}')
    lists[source.label] = forward.rankings(
      source.run, sources.test_batches(), search_quality.KEEP
    )
  return lists
