"""How long mutual information takes, as `analyze` counts it, on a made log.

    python -m dare_jax.bench information [--rows=5000000] [--length=200]

counts (target category, behavior category, position) over training rows in
which categories are as unequal as in a shop: the n-th occurs in proportion to
1 / n. Times and peak memory are those of the counting.
"""

from __future__ import annotations

from collections.abc import Callable
import resource
import time
from typing import Any

from absl import flags
import numpy as np

from dare_jax.analysis import information
from dare_jax.analysis import search_quality

_EVENTS = 300  # of a user
_TARGETS = 3  # of a moment, one of them clicked
_MOMENTS = 19  # of a user


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  rows = flags.DEFINE_integer('rows', 5_000_000, 'Training rows.')
  length = flags.DEFINE_integer('length', 200, 'Behaviors that a row sees.')
  categories = flags.DEFINE_integer(
    'categories', 9_407, 'Number of categories.'
  )

  def measure() -> list[dict[str, Any]]:
    return [row(rows.value, length.value, categories.value)]

  return measure


def row(num_rows: int, length: int, num_categories: int) -> dict[str, Any]:
  """Returns what counting all categories with enough rows costs."""
  histories, rows = made(num_rows, length, num_categories)
  counts = np.bincount(rows.target, minlength=num_categories)
  targets = np.flatnonzero(counts >= search_quality.MIN_ROWS)
  before = _peak_gb()
  begin, cells, best = time.perf_counter(), 0, 0.0
  for found in information.sweep(histories, rows, targets):
    bits = found.information()
    cells += len(bits)
    best = max(best, float(bits.max(initial=0.0)))
  return {
    'rows': num_rows,
    'length': length,
    'categories': num_categories,
    'target_categories': len(targets),
    'pairs': int(counts[targets].sum()) * length,
    'cells': cells,
    'most_bits': best,
    'seconds': time.perf_counter() - begin,
    'peak_before_gb': before,
    'peak_gb': _peak_gb(),
  }


def made(
  num_rows: int, length: int, num_categories: int
) -> tuple[information.Histories, information.Rows]:
  """Returns histories, and rows over them that see `length` behaviors."""
  rng = np.random.default_rng(0)
  moments = -(-num_rows // _TARGETS)
  users = -(-moments // _MOMENTS)
  events = max(_EVENTS, length + _MOMENTS)
  share = np.cumsum(1.0 / np.arange(1, num_categories + 1))

  def draw(size: int) -> np.ndarray:
    place = rng.random(size) * share[-1]
    return np.searchsorted(share, place).astype(np.int32)

  offsets = np.arange(users + 1, dtype=np.int64) * events
  histories = information.Histories(
    draw(users * events), offsets, length, num_categories
  )
  user = np.repeat(np.arange(users, dtype=np.int32), _MOMENTS)[:moments]
  end = offsets[user] + rng.integers(length, events, len(user))
  label = np.arange(_TARGETS) == 0
  target = np.where(
    label,
    histories.category[end][:, None],
    draw(_TARGETS * moments).reshape(-1, _TARGETS),
  )
  spread = lambda values: np.repeat(values, _TARGETS)[:num_rows]
  return histories, information.Rows(
    target.ravel()[:num_rows],
    np.tile(label, moments)[:num_rows],
    spread(user),
    spread(end),
  )


def _peak_gb() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
