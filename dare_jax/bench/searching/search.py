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
import pathlib
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import errors
from dare_jax import plots
from dare_jax.bench.searching import calls
from dare_jax.bench.searching import drawing
from dare_jax.bench.searching import rivals
from dare_jax.process import runtime
from dare_jax.serving import user_state

_JUDGED_S = 1e-3


@dataclasses.dataclass(frozen=True)
class Point:
  """One search to measure."""

  length: int
  candidates: int
  dim: int
  precision: str
  method: str
  categories: int = 300


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  length = flags.DEFINE_list(
    'length',
    ['50000', '200', '1000', '10000', '100000'],
    'Behaviors of a user.',
  )
  candidates = flags.DEFINE_list(
    'candidates', ['1', '128'], 'Targets of a user.'
  )
  dim = flags.DEFINE_list(
    'dim', ['32', '8', '16', '64', '128'], 'Attention dimensions.'
  )
  precision = flags.DEFINE_list(
    'precision', ['float32', 'bfloat16', 'int8'], 'Precisions of cached keys.'
  )
  method = flags.DEFINE_list(
    'method',
    [*calls.STATES, 'category', 'simhash', 'clusters', 'buckets'],
    'Searches: score reads cached keys, score_by_category those without the'
    ' category, which are half; the others read whole windows.',
  )
  categories = flags.DEFINE_list(
    'categories', ['300'], 'Categories, and clusters of a user.'
  )
  top_k = flags.DEFINE_integer('top_k', 20, 'Behaviors kept.', lower_bound=1)
  keys_mb = flags.DEFINE_integer(
    'keys_mb', 500, 'Least size of all float32 keys, in MB.', lower_bound=1
  )
  peers = flags.DEFINE_list(
    'peers', [], 'Libraries to time as well: torch, faiss.'
  )
  auc = flags.DEFINE_string(
    'auc',
    None,
    'JSON of test AUC: rows of attention_dim, representation_dim, model, auc.',
  )
  figure = flags.DEFINE_string('figure', None, 'Draw the rows here (PNG).')

  def measure() -> list[dict[str, Any]]:
    """Returns a row for each combination of the list flags."""
    if figure.value:
      plots.require('--figure')
    quality = drawing.read_auc(auc.value) if auc.value else []
    runtime.keep_memory()
    points = list(
      sweep(
        length=_whole('length', length.value),
        candidates=_whole('candidates', candidates.value),
        dim=_whole('dim', dim.value),
        categories=_whole('categories', categories.value),
        precision=precision.value,
        method=method.value,
      )
    )
    _check(points, top_k.value, peers.value)
    machine = measure_machine(keys_mb.value)
    rows = [
      measure_one(point, top_k.value, keys_mb.value, machine, peers.value)
      for point in points
    ]
    if figure.value:
      drawing.draw(rows, pathlib.Path(figure.value), quality)
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
  known = {
    'precision': user_state.PRECISIONS,
    'method': calls.METHODS,
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
    if point.method == calls.STATES[1] and point.dim < 2:
      raise errors.UsageError(
        f'--dim={point.dim}: expected 2 or more, half of them the category.'
      )
  rivals.check(peers)


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


def measure_machine(keys_mb: int) -> dict[str, float]:
  """Returns what memory and arithmetic give: GB/s read, GFLOP/s."""
  values = jnp.ones(keys_mb * 250_000, jnp.float32)
  total = jax.jit(jnp.sum)
  read = values.nbytes / 1e9 / calls.seconds(lambda: total(values))
  del values
  size = 2048
  square = jnp.ones((size, size), jnp.float32)
  product = jax.jit(jnp.matmul)
  product_s = calls.seconds(lambda: product(square, square))
  rate = 2e-9 * size**3 / product_s
  return {'stream_gb_per_s': read, 'matmul_gflop_per_s': rate}


def measure_one(
  point: Point,
  top_k: int,
  keys_mb: int,
  machine: dict[str, float],
  peers: list[str],
) -> dict[str, Any]:
  """Returns the row of one point."""
  users = -(-keys_mb * 1_000_000 // (4 * point.length * point.dim))
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
  keys = draw(users, point.length, point.dim)
  query = jax.device_put(draw(users, point.candidates, point.dim))
  bias = jax.device_put(draw(user_state.capacity_of(point.length) + 1))
  row = {**dataclasses.asdict(point), 'top_k': top_k, 'users': users}
  whole, apart = calls.STATES
  if point.method in (whole, apart):
    categories = point.categories if point.method == apart else None
    row |= calls.from_state(
      keys, query, bias, top_k, point.precision, categories
    )
  else:
    row |= calls.from_windows(
      point.method, keys, query, bias, top_k, point.categories
    )
  search_s = row['search_s']
  stream, rate = machine['stream_gb_per_s'], machine['matmul_gflop_per_s']
  row['stream_share'] = row['read_mb'] / 1e3 / search_s / stream
  flops = 2e-9 * users * point.candidates * point.length * point.dim
  row['matmul_share'] = (
    flops / row['score_s'] / rate if point.method == whole else None
  )
  row |= {'judged': search_s >= _JUDGED_S, **machine}
  sizes = (point.length, point.dim, point.candidates, top_k)
  compared = point.method in (whole, apart) and point.precision == 'float32'
  for peer in peers:
    row[f'{peer}_s'] = rivals.seconds(peer, users, *sizes) if compared else None
  return row
