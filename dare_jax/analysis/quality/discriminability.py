"""How much of the label do clusters of a representation tell? (Figure 10)

Vectors of the test targets are clustered by k-means; the mutual information of
cluster and label, and its normalised form, say how well vectors of clicked
targets lie apart from the others (arXiv 2410.02604, section 5). The published
code clusters the head's whole input and plots the normalised form; both inputs
and both forms are here.
"""

from __future__ import annotations

from collections.abc import Callable
import pathlib
from typing import Any

import numpy as np

from dare_jax.analysis import forward
from dare_jax.analysis import sources as sources_lib

CLUSTERS = (2, 5, 10, 20, 50, 100, 200)
SEEDS = (1, 2, 3, 4, 5)
INPUTS = ('interest', 'input')
_MOST_ROWS = 50_000
_LEAST_MEMBERS = 5  # of a cluster, on average


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Returns the data of the figure, by its name."""
  del output
  label = sources.test.label[sources.test.real]
  rows = np.arange(len(label))
  if len(rows) > _MOST_ROWS:
    chosen = np.random.default_rng(0).choice(rows, _MOST_ROWS, replace=False)
    rows = np.sort(chosen)
  clusters = [
    n for n in CLUSTERS if n == CLUSTERS[0] or n * _LEAST_MEMBERS <= len(rows)
  ]
  models: dict[str, Any] = {}
  for source in sources.all:
    tell(f'predicting the test split with {source.label}')
    seen = forward.head_inputs(source.run, sources.test_batches())
    models[source.label] = {}
    for name in INPUTS:
      tell(f'clustering the {name} of {source.label}')
      models[source.label][name] = scores(
        seen[name][rows], label[rows], clusters
      )
  return {
    'discriminability': {
      'clusters': clusters,
      'seeds': list(SEEDS),
      'rows': len(rows),
      'models': models,
    }
  }


def scores(
  vectors: np.ndarray, label: np.ndarray, clusters: list[int]
) -> dict[str, list[list[float]]]:
  """Returns what clusters tell of the label.

  Args:
    vectors: float [n, d], the vectors that are clustered.
    label: bool [n], whether each was clicked.
    clusters: the numbers of clusters to try.

  Returns:
    'mi', in bits, and 'nmi', from 0 to 1: for each number of clusters, the
    values of all seeds.
  """
  from sklearn import cluster
  from sklearn import metrics
  import threadpoolctl

  found: dict[str, list[list[float]]] = {'mi': [], 'nmi': []}
  for number in clusters:
    of_seeds = []
    for seed in SEEDS:
      means = cluster.MiniBatchKMeans(number, random_state=seed, n_init=3)
      # Its batches are small: threads wait for each other most of the time.
      with threadpoolctl.threadpool_limits(1):
        of_seeds.append(means.fit_predict(vectors))
    found['mi'].append(
      [
        float(metrics.mutual_info_score(label, own) / np.log(2))
        for own in of_seeds
      ]
    )
    found['nmi'].append(
      [
        float(metrics.normalized_mutual_info_score(label, own))
        for own in of_seeds
      ]
    )
  return found
