"""Benchmark: the search stage from cached keys, against memory and peers.

Each list of sizes is swept with the others at their first value, for every
precision and every method:

    python -m dare_jax.bench search --length=50000,1000,200 --dim=32,64

Enough users are made that their float32 keys fill `keys_mb`, so that no cache
holds them. A point is judged if its search takes a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from absl import flags
import numpy as np

from dare_jax import errors
from dare_jax import runtime
from dare_jax.bench import overlap

_JUDGED_S = 1e-3
_CATEGORIES = 300
# Scores written out whole when they are timed alone; else their maxima are.
_WHOLE_BYTES = 1 << 28
_SECONDS = 1.0
_LEAST, _MOST = 3, 15
# The peers' own process: no other runtime's threads, the same number of them.
_PEER = """
import json, sys, time
import numpy as np
engine, users, length, dim, candidates, k, threads = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
keys = rng.standard_normal((users, length, dim), dtype=np.float32)
query = rng.standard_normal((users, candidates, dim), dtype=np.float32)
calls = []
if engine == 'torch':
  import torch
  torch.set_num_threads(threads)
  torch.set_grad_enabled(False)
  q, rows = torch.from_numpy(query), torch.from_numpy(keys)
  step = max(1, (1 << 26) // (4 * length * candidates))
  def search(k_t):
    for i in range(0, users, step):
      (q[i : i + step] @ k_t[i : i + step]).topk(k)
  columns = rows.transpose(1, 2).contiguous()
  calls = [lambda: search(rows.transpose(1, 2)), lambda: search(columns)]
else:
  import faiss
  faiss.omp_set_num_threads(threads)
  indices = []
  for user in range(users):
    indices.append(faiss.IndexFlatIP(dim))
    indices[-1].add(keys[user])
  def search():
    for index, q in zip(indices, query):
      index.search(q, k)
  calls = [search]
best = float('inf')
for call in calls:
  call()
  taken, end = [], time.perf_counter() + 1.0
  while len(taken) < 3 or (time.perf_counter() < end and len(taken) < 15):
    begin = time.perf_counter()
    call()
    taken.append(time.perf_counter() - begin)
  best = min(best, float(np.median(taken)))
print(best)
"""


@dataclasses.dataclass(frozen=True)
class Point:
  """One search to measure."""

  length: int
  candidates: int
  dim: int
  precision: str
  method: str


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  length = flags.DEFINE_list(
    'length', ['50000', '200', '1000', '10000', '100000'], 'Behaviors a user.'
  )
  candidates = flags.DEFINE_list('candidates', ['1', '128'], 'Targets a user.')
  dim = flags.DEFINE_list(
    'dim', ['32', '8', '16', '64', '128'], 'Attention dimensions.'
  )
  precision = flags.DEFINE_list(
    'precision', ['float32', 'bfloat16', 'int8'], 'Of the cached keys.'
  )
  method = flags.DEFINE_list(
    'method',
    ['score', 'category', 'simhash', 'clusters'],
    'Searches; score reads cached keys, the others whole windows.',
  )
  top_k = flags.DEFINE_integer('top_k', 20, 'Behaviors kept.', lower_bound=1)
  keys_mb = flags.DEFINE_integer(
    'keys_mb', 500, 'Float32 keys of all users, at least.', lower_bound=1
  )
  peers = flags.DEFINE_list('peers', [], 'Of torch, faiss: timed as well.')
  auc = flags.DEFINE_string(
    'auc',
    None,
    'JSON of test AUC: rows of attention_dim, representation_dim, model, auc.',
  )
  figure = flags.DEFINE_string('figure', None, 'Draw the rows here (PNG).')

  def measure() -> list[dict[str, Any]]:
    runtime.keep_memory()
    points = list(
      sweep(
        length=_whole('length', length.value),
        candidates=_whole('candidates', candidates.value),
        dim=_whole('dim', dim.value),
        precision=precision.value,
        method=method.value,
      )
    )
    _check(points, top_k.value, peers.value)
    machine = measure_machine(keys_mb.value)
    rows = []
    for point in points:
      rows.append(
        measure_one(point, top_k.value, keys_mb.value, machine, peers.value)
      )
    if figure.value:
      from dare_jax.bench import search_figure

      search_figure.draw(rows, pathlib.Path(figure.value), auc.value)
    return rows

  return measure


def _whole(name: str, values: list[str]) -> list[int]:
  """Returns a flag's numbers."""
  for value in values:
    if not value.isdigit() or int(value) < 1:
      raise errors.UsageError(f'--{name}={value}: expected whole numbers >= 1.')
  return [int(value) for value in values]


def _check(points: list[Point], top_k: int, peers: list[str]) -> None:
  """Refuses what cannot be measured."""
  from dare_jax import search
  from dare_jax.search import user_state

  known = {
    'precision': user_state.PRECISIONS,
    'method': tuple(name for name in search.SEARCHES if name != 'all'),
  }
  for point in points:
    for name, allowed in known.items():
      if getattr(point, name) not in allowed:
        raise errors.UsageError(
          f'--{name}={getattr(point, name)}: expected of {", ".join(allowed)}.'
        )
    if point.length < top_k:
      raise errors.UsageError(
        f'--length={point.length}: expected at least --top_k={top_k}.'
      )
  for peer in peers:
    if peer not in ('torch', 'faiss'):
      raise errors.UsageError(f'--peers={peer}: expected of torch, faiss.')
    if importlib.util.find_spec(peer) is None:
      raise errors.UsageError(f'--peers={peer}: {peer} is not installed.')


def sweep(
  precision: list[str], method: list[str], **sizes: list[Any]
) -> Iterator[Point]:
  """Yields the first sizes, and all that differ in one, of each search.

  The first method is swept in each precision, the others in the first.
  """
  kinds = [(each, method[0]) for each in precision]
  kinds += [(precision[0], each) for each in method[1:]]
  at_first = {name: values[0] for name, values in sizes.items()}
  for kind in kinds:
    first = Point(**at_first, precision=kind[0], method=kind[1])
    yield first
    for name, values in sizes.items():
      for value in values[1:]:
        yield dataclasses.replace(first, **{name: value})


def seconds(call: Callable[[], Any]) -> float:
  """Returns the median time of a call, after a first one that may compile."""
  import jax

  jax.block_until_ready(call())
  taken: list[float] = []
  while len(taken) < _LEAST or (sum(taken) < _SECONDS and len(taken) < _MOST):
    begin = time.perf_counter()
    jax.block_until_ready(call())
    taken.append(time.perf_counter() - begin)
  return float(np.median(taken))


def measure_machine(keys_mb: int) -> dict[str, float]:
  """Returns what memory and arithmetic give: GB/s read, GFLOP/s."""
  import jax
  import jax.numpy as jnp

  values = jnp.ones(keys_mb * 250_000, jnp.float32)
  total = jax.jit(jnp.sum)
  read = values.nbytes / 1e9 / seconds(lambda: total(values))
  del values
  size = 2048
  square = jnp.ones((size, size), jnp.float32)
  product = jax.jit(jnp.matmul)
  rate = 2e-9 * size**3 / seconds(lambda: product(square, square))
  return {'stream_gb_per_s': read, 'matmul_gflop_per_s': rate}


def measure_one(
  point: Point,
  top_k: int,
  keys_mb: int,
  machine: dict[str, float],
  peers: list[str],
) -> dict[str, Any]:
  """Returns the row of one point."""
  import jax.numpy as jnp

  from dare_jax.search import user_state

  users = -(-keys_mb * 1_000_000 // (4 * point.length * point.dim))
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
  keys = jnp.asarray(draw(users, point.length, point.dim))
  query = jnp.asarray(draw(users, point.candidates, point.dim))
  bias = jnp.asarray(draw(point.length + 1))
  row = {**dataclasses.asdict(point), 'top_k': top_k, 'users': users}
  if point.method == 'score':
    mask = jnp.ones((users, point.length), bool)
    state = user_state.build(keys, mask, point.precision)
    del keys
    row |= _from_state(state, query, bias, top_k)
  else:
    row |= _from_windows(point, keys, query, bias, top_k)
  search_s = row['search_s']
  stream, rate = machine['stream_gb_per_s'], machine['matmul_gflop_per_s']
  flops = 2e-9 * users * point.candidates * point.length * point.dim
  row['stream_share'] = row['read_mb'] / 1e3 / search_s / stream
  row['matmul_share'] = (
    flops / row['score_s'] / rate if row['score_s'] else None
  )
  row |= {'judged': search_s >= _JUDGED_S, **machine}
  if point.method == 'score' and point.precision == 'float32':
    for peer in peers:
      row[f'{peer}_s'] = _peer_s(peer, users, point, top_k)
  else:
    row |= {f'{peer}_s': None for peer in peers}
  return row


def _from_state(
  state: Any, query: Any, bias: Any, top_k: int
) -> dict[str, Any]:
  """Times a search by score from cached keys, and its scores alone."""
  import jax

  from dare_jax.search import user_state

  search = jax.jit(functools.partial(user_state.search, k=top_k))
  users, candidates, _ = query.shape
  if 4 * users * candidates * state.capacity <= _WHOLE_BYTES:
    score = jax.jit(user_state.content_scores)
  else:

    @jax.jit
    def score(state: Any, query: Any) -> Any:
      one = lambda part: user_state.content_scores(
        *jax.tree.map(lambda x: x[None], part)
      ).max(axis=-1)
      return jax.lax.map(one, (state, query))

  search_s = seconds(lambda: search(state, query, bias))
  score_s = seconds(lambda: score(state, query))
  return {
    'search_s': search_s,
    'score_s': score_s,
    'top_k_share': max(0.0, 1 - score_s / search_s),
    'read_mb': state.keys.nbytes / 1e6,
    'recall': _recall(state, query, bias, top_k),
  }


def _recall(state: Any, query: Any, bias: Any, top_k: int) -> float:
  """Returns the share of the exact k best that a state's search finds."""
  import jax
  import jax.numpy as jnp

  from dare_jax.search import user_state

  if state.exact is None:
    return 1.0
  few = jax.tree.map(lambda x: x[:8], state)
  whole = user_state.build(
    few.exact, jnp.ones(few.exact.shape[:2], bool), 'float32'
  )
  found = [
    np.asarray(user_state.search(each, query[:8], bias, top_k).indices)
    for each in (few, whole)
  ]
  return float(np.mean(overlap.shares(*found)))


def _from_windows(
  point: Point, keys: Any, query: Any, bias: Any, top_k: int
) -> dict[str, Any]:
  """Times a search of the model's, and compares it with the exact one."""
  import jax
  import jax.numpy as jnp

  from dare_jax import search
  from dare_jax import types

  users, length, _ = keys.shape
  rng = np.random.default_rng(1)
  whole = lambda *shape: jnp.asarray(
    rng.integers(0, _CATEGORIES, shape, dtype=np.int32)
  )
  groups = types.Clusters(
    cluster=whole(users, length),
    rank=jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (users, length)),
  )
  history = types.History(
    ids={'category': whole(users, length)},
    mask=jnp.ones((users, length), bool),
    clusters=groups if point.method == 'clusters' else None,
  )
  view = search.SearchView(
    query=query[:, None],
    keys=keys,
    bias_by_distance=bias,
    distance=jnp.broadcast_to(
      length - jnp.arange(length, dtype=jnp.int32), (users, 1, length)
    ),
    visible=jnp.ones((users, 1, length), bool),
    target_ids={'category': whole(users, 1, point.candidates)},
    history=history,
  )
  options = search.SearchOptions(top_k=top_k, num_clusters=_CATEGORIES)
  scorer = search.DotScorer()
  score = lambda view: scorer.apply({}, view)
  module = search.SEARCHES[point.method](options)
  few = jax.tree.map(lambda x: x[:2] if x.shape[:1] == (users,) else x, view)
  variables = module.init(jax.random.key(0), few, score)
  apply = lambda view: module.apply(variables, view, score)[0]
  run = jax.jit(apply)
  exact = search.ScoreSearch(options).apply({}, few, score)
  assert not isinstance(exact, dict)
  return {
    'search_s': seconds(lambda: run(view)),
    'score_s': None,
    'top_k_share': None,
    'read_mb': keys.nbytes / 1e6,
    'recall': float(
      np.mean(
        overlap.shares(
          np.asarray(apply(few).indices), np.asarray(exact[0].indices)
        )
      )
    ),
  }


def _peer_s(peer: str, users: int, point: Point, top_k: int) -> float:
  """Returns the time of a peer's search of the same shapes."""
  threads = len(os.sched_getaffinity(0))
  sizes = (users, point.length, point.dim, point.candidates, top_k, threads)
  done = subprocess.run(
    [sys.executable, '-c', _PEER, json.dumps([peer, *sizes])],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return float(done.stdout.split()[-1])
