"""How mutual information ranks what a made log has planted, by its rows.

    python -m dare_jax.bench planted [--users=20000] [--moments=150]

makes logs as configs/synthetic.py does, takes moments of each user at random,
each with one target that was clicked and two drawn by popularity, and tells the
rank correlations of `analyze --only=search` on them: no model is trained.
"""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

from absl import flags
import ml_collections
import numpy as np

from dare_jax.analysis import information
from dare_jax.analysis import planted
from dare_jax.analysis import planted_information
from dare_jax.analysis import search_quality
from dare_jax.configs import synthetic as config_lib
from dare_jax.logs import id_map
from dare_jax.logs.builders import synthetic

_NEGATIVES = 2


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  users = flags.DEFINE_list('users', ['2000', '20000'], 'Users of a log.')
  moments = flags.DEFINE_integer('moments', 150, 'Moments of a user.')

  def measure() -> list[dict[str, Any]]:
    data = config_lib.get_config().data
    return [row(data, int(number), moments.value) for number in users.value]

  return measure


def row(
  data: ml_collections.ConfigDict, num_users: int, moments: int
) -> dict[str, Any]:
  """Returns the correlations over a log of some users."""
  begin = time.perf_counter()
  names = [field.name for field in synthetic.FIELDS]
  spec = synthetic.Spec(
    **{name: data[name] for name in names} | {'num_users': num_users}
  )
  log = synthetic.generate(spec)
  histories = information.Histories(
    log.category + id_map.FIRST,
    log.offsets,
    data.history_length,
    spec.num_categories + id_map.FIRST,
  )
  rows = made(histories, data.min_history, moments)
  implied = planted_information.expected(
    log.truth, spec.relevance, data.history_length
  )
  cells = planted.Cells(log.truth, implied)
  counts = np.bincount(rows.target)
  targets = np.flatnonzero(counts >= search_quality.MIN_ROWS)
  for one in information.sweep(histories, rows, targets):
    cells.visit(one)
  found = cells.data()
  told = ('num_cells', 'spearman', 'spearman_expected', 'spearman_bound')
  return {
    'users': num_users,
    'rows': len(rows.target),
    **{name: found[name] for name in told},
    'seconds': time.perf_counter() - begin,
  }


def made(
  histories: information.Histories, min_history: int, moments: int
) -> information.Rows:
  """Returns targets at random moments after `min_history` behaviors."""
  rng = np.random.default_rng(0)
  lengths = np.diff(histories.offsets)
  long = np.flatnonzero(lengths > min_history)
  user = np.repeat(long, moments)
  end = histories.offsets[user] + rng.integers(min_history, lengths[user])
  others = rng.choice(histories.category, (len(end), _NEGATIVES))
  clicked = histories.category[end][:, None]
  targets = np.concatenate([clicked, others], axis=1)
  label = np.arange(1 + _NEGATIVES) == 0
  return information.Rows(
    targets.ravel(),
    np.tile(label, len(end)),
    np.repeat(user, 1 + _NEGATIVES),
    np.repeat(end, 1 + _NEGATIVES),
  )
