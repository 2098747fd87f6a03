"""Random views, and scores put back to where their behaviors lie."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dare_jax import aggregate
from dare_jax import search
from dare_jax import types

NUM_CATEGORIES = 3
NUM_CLUSTERS = 5
SHAPES = ((1, 1, 1, 4, 2), (3, 2, 2, 7, 4), (2, 3, 4, 12, 5))


def make_view(
  seed: int,
  windows: int = 3,
  moments: int = 2,
  candidates: int = 2,
  length: int = 7,
  width: int = 4,
  *,
  clusters: bool = False,
) -> search.SearchView:
  """Returns a view; moments may see nothing, the last one sees the most."""
  rng = np.random.default_rng(seed)
  padding = rng.integers(0, length // 2 + 1, windows)
  end = rng.integers(padding[:, None], length + 1, (windows, moments))
  end[:, -1] = length
  index = np.arange(length)
  mask = index >= padding[:, None]
  visible = mask[:, None] & (index < end[..., None])
  targets = (windows, moments, candidates)
  draw = lambda *shape: jax.device_put(rng.normal(size=shape))
  whole = lambda high, shape: rng.integers(0, high, shape).astype(np.int32)
  history = types.History(
    ids={'category': jax.device_put(whole(NUM_CATEGORIES, mask.shape) * mask)},
    mask=jax.device_put(mask),
  )
  if clusters:
    history = history.replace(
      clusters=types.Clusters(
        cluster=jax.device_put(whole(NUM_CLUSTERS, mask.shape) * mask),
        rank=jax.device_put(whole(3, mask.shape) * mask),
      )
    )
  distance = np.maximum(end[..., None] - index, 0).astype(np.int32)
  return search.SearchView(
    query=draw(*targets, width),
    keys=draw(windows, length, width),
    bias_by_distance=draw(length + 1),
    distance=jax.device_put(distance),
    visible=jax.device_put(visible),
    target_ids={'category': jax.device_put(whole(NUM_CATEGORIES, targets))},
    history=history,
    time_dim=3,
  )


@jax.jit
def dot(view: search.SearchView) -> Any:
  """The scores of TWIN and DARE."""
  return search.inner_product_scores(view.query, view.keys, view.time_bias())


def find(
  kind: Any, view: search.SearchView, **options: Any
) -> tuple[types.SearchResult, search.Attention, Any]:
  """Returns what a fresh search finds, and its variables."""
  searcher = kind(search.SearchOptions(**({'top_k': 3} | options)))
  search_afresh = jax.jit(searcher.init_with_output, static_argnums=2)
  found, variables = search_afresh(jax.random.key(1), view, dot)
  return *found, variables


@jax.jit
def weights(result: types.SearchResult) -> Any:
  """Returns what softmax makes of the scores of the behaviors kept."""
  return aggregate.masked_softmax(result.scores, result.mask)


def at_home(values: Any, result: types.SearchResult, length: int) -> np.ndarray:
  """Returns what belongs to the kept at their places, 0 elsewhere."""
  home = np.zeros((*result.mask.shape[:3], length), np.float64)
  values, indices = np.asarray(values), np.asarray(result.indices)
  for where in np.argwhere(np.asarray(result.mask)):
    place = (*where[:3], indices[tuple(where)])
    assert home[place] == 0, 'kept twice'
    home[place] = values[tuple(where)]
  return home
