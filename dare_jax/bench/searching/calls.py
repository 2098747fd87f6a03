"""What `bench search` times: one search of random histories, by any method."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import time
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import aggregate
from dare_jax import search
from dare_jax import types
from dare_jax.bench.searching import overlap
from dare_jax.models import by_windows
from dare_jax.serving import ranking
from dare_jax.serving import user_state

# From cached keys; whole, or with the category's half scored by category.
STATES = ('score', 'score_by_category')
# No top-k: the behaviors that share a hash bucket with the target, summed.
BUCKETS = 'buckets'
METHODS = (
  *STATES,
  *(name for name in search.SEARCHES if name not in ('all', 'score')),
  BUCKETS,
)
# Scores written out whole when they are timed alone; else a user's take the
# place of those before.
_WHOLE_BYTES = 1 << 28
# As models do, searches of windows make so many scores at once.
_SCORES_AT_ONCE = 1 << 20
_SECONDS = 1.0
_LEAST, _MOST = 3, 15
# Users whose search is compared with the exact one.
_COMPARED = 8
_build = jax.jit(
  user_state.build, static_argnames=('precision', 'num_categories')
)
_search = jax.jit(user_state.search, static_argnames='k')
_score = jax.jit(ranking.content_scores)


def seconds(call: Callable[[], Any]) -> float:
  """Returns the median time of a call, after a first one that may compile."""
  jax.block_until_ready(call())
  taken: list[float] = []
  while len(taken) < _LEAST or (sum(taken) < _SECONDS and len(taken) < _MOST):
    begin = time.perf_counter()
    jax.block_until_ready(call())
    taken.append(time.perf_counter() - begin)
  return float(np.median(taken))


def from_state(
  keys: Any,
  query: Any,
  bias: Any,
  top_k: int,
  precision: str,
  categories: int | None,
) -> dict[str, Any]:
  """Times a search by score from cached keys, and its scores alone.

  Args:
    keys: float32 [b, l, d], the keys of the behaviors, in NumPy.
    query: float32 [b, c, d], the queries of the targets.
    bias: float32, the score of each distance that a state of l behaviors has.
    top_k: number of behaviors to keep.
    precision: the precision in which the keys are held, as
      `products.PRECISIONS`.
    categories: number of categories that are scored apart; their keys overwrite
      the last half of the keys' dimensions. None: keys are held whole.
  """
  made = _states(keys, precision, categories)
  users, candidates, _ = query.shape
  score = _scorer(users * candidates * made.state.capacity)
  search = lambda: _search(made.state, query, bias, top_k, made.table)
  search_s = seconds(search)
  score_s = seconds(lambda: score(made.state, query, made.table))
  few = np.asarray(query)[:_COMPARED]
  return {
    'search_s': search_s,
    'score_s': score_s,
    'top_k_share': max(0.0, 1 - score_s / search_s),
    'read_mb': made.read_mb,
    'recall': _recall(search(), _search(made.exact, few, bias, top_k)),
  }


@dataclasses.dataclass(frozen=True)
class _States:
  """Users' cached keys.

  Attributes:
    state: the state of all users.
    table: float32 [n, e], the keys of categories, where they are held apart.
    exact: the state of a few users, with whole keys in float32.
  """

  state: user_state.UserState
  table: Any
  exact: user_state.UserState

  @property
  def read_mb(self) -> float:
    """Megabytes of keys and categories that a search reads."""
    apart = 0 if self.table is None else self.state.category.nbytes
    return (self.state.keys.nbytes + apart) / 1e6


def _states(keys: Any, precision: str, categories: int | None) -> _States:
  """Returns the states of users, from arguments of `from_state`."""
  users, length, dim = keys.shape
  mask = np.ones((users, length), bool)
  build = lambda keys, *args: _build(keys, mask[: len(keys)], *args)
  if categories is None:
    return _States(build(keys, precision), None, build(keys[:_COMPARED]))
  rng = np.random.default_rng(1)
  size = (users, length)
  category: Any = rng.integers(categories, size=size, dtype=np.int32)
  item = dim - dim // 2
  table = rng.standard_normal((categories, dim // 2), np.float32)
  keys[:_COMPARED, :, item:] = table[category[:_COMPARED]]
  return _States(
    build(keys[..., :item], precision, category, categories),
    jax.device_put(table),
    build(keys[:_COMPARED]),
  )


def _scorer(scores: int) -> Callable[[Any, Any, Any], Any]:
  """Returns a function that makes so many scores of users' states."""
  if 4 * scores <= _WHOLE_BYTES:
    return _score

  @jax.jit
  def score(state: Any, query: Any, table: Any) -> Any:
    def one(last: Any, part: Any) -> Any:
      alone, own = jax.tree.map(lambda x: x[None], part)
      return ranking.content_scores(alone, own, table), None

    space = jnp.zeros((1, query.shape[1], state.capacity))
    return jax.lax.scan(one, space, (state, query))[0]

  return score


def _recall(found: types.SearchResult, exact: types.SearchResult) -> float:
  """Returns the share of the first users' exact k best that is found."""
  wanted = np.asarray(exact.distance)
  own = np.asarray(found.distance)[: len(wanted)]
  return float(np.mean(overlap.shares(own, wanted)))


def from_windows(
  method: str, keys: Any, query: Any, bias: Any, top_k: int, categories: int
) -> dict[str, Any]:
  """Times a search of the model's; compares it with the exact one.

  Of buckets, the whole step is timed: the sums of what shares a bucket with
  the target, with the keys as the vectors that are summed.
  """
  users, length, _ = keys.shape
  candidates = query.shape[1]
  rng = np.random.default_rng(1)
  draw = lambda *shape: rng.integers(0, categories, shape, dtype=np.int32)
  category, target = draw(users, length), draw(users, 1, candidates)
  cluster = draw(users, length) if method == 'clusters' else None
  query = np.asarray(query)[:, None]
  inputs = (keys, query, category, target, cluster)
  few = jax.tree.map(lambda x: x[:_COMPARED], inputs)
  inputs = jax.device_put(inputs)
  options = search.SearchOptions(top_k=top_k, num_clusters=categories)
  scorer = search.DotScorer()
  score = lambda view: scorer.apply({}, view)
  finder = functools.partial(_find, score=score, bias=bias)
  everything = functools.partial(search.FullSearch(options).apply, {})

  def pool(module: nn.Module, part: Any) -> Any:
    result = finder(everything, part)
    values = aggregate.Values(part[0], None)
    return module(result, values, part[1])

  if method == BUCKETS:
    call: Any = pool
    module: Any = aggregate.BucketPooling(aggregate.AggregationOptions())
  else:
    call, module = finder, search.SEARCHES[method](options)
  size = max(1, _SCORES_AT_ONCE // (length * candidates))
  turns = lambda module, inputs: by_windows.apply(module, call, inputs, size)
  variables = jax.jit(nn.init(call, module))(jax.random.key(0), few)
  run = jax.jit(nn.apply(turns, module))
  row = {
    'search_s': seconds(lambda: run(variables, inputs)),
    'score_s': None,
    'top_k_share': None,
    'read_mb': keys.nbytes / 1e6,
    'recall': None,
  }
  if method != BUCKETS:
    exact = functools.partial(search.ScoreSearch(options).apply, {})
    wanted = jax.jit(functools.partial(finder, exact))(few)
    row['recall'] = _recall(run(variables, inputs), wanted)
  return row


def _find(module: Any, part: Any, score: Any, bias: Any) -> types.SearchResult:
  """Returns what a search finds for a few users."""
  keys, query, category, target, cluster = part
  users, length, _ = keys.shape
  rank = jnp.arange(length, dtype=jnp.int32)
  clusters = None
  if cluster is not None:
    clusters = types.Clusters(cluster, jnp.broadcast_to(rank, cluster.shape))
  shape = (users, 1, length)
  view = search.SearchView(
    query=query,
    keys=keys,
    bias_by_distance=bias,
    distance=jnp.broadcast_to(length - rank, shape),
    visible=jnp.ones(shape, bool),
    target_ids={'category': target},
    history=types.History(
      ids={'category': category},
      mask=jnp.ones((users, length), bool),
      clusters=clusters,
    ),
  )
  return module(view, score)[0]
