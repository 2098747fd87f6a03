"""What match terms add to a search of cached keys, in CPU seconds.

Both searches take turns, so that what else runs on the machine slows both. CPU
seconds are those of this process, over all its threads.

    python -m dare_jax.bench matches --candidates=500 --length=10000
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.search import matching as matching_lib
from dare_jax.serving import user_state

# Items and categories of a history, of Zipf's law as in a log.
_ROWS = {'item': 100_000, 'category': 300}
_EXPONENT = 1.3
_TOP_K = 20
_TURNS = 31


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  length = flags.DEFINE_integer(
    'length', 10_000, 'Behaviors of a user.', lower_bound=20
  )
  candidates = flags.DEFINE_integer(
    'candidates', 500, 'Targets of a user.', lower_bound=1
  )
  dim = flags.DEFINE_integer('dim', 32, 'Width of a key.', lower_bound=1)
  return lambda: measure(length.value, candidates.value, dim.value)


def measure(length: int, candidates: int, dim: int) -> list[dict[str, Any]]:
  """Returns a row for the search without and with match terms."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))
  keys, query = draw(1, length, dim), draw(1, candidates, dim)
  mask = jnp.ones((1, length), bool)

  def ids(rows: int, *shape: int) -> jax.Array:
    return jnp.asarray(2 + rng.zipf(_EXPONENT, shape) % (rows - 2), jnp.int32)

  past = {field: ids(rows, 1, length) for field, rows in _ROWS.items()}
  plain = user_state.build(keys, mask)
  holding = user_state.build(keys, mask, match_ids=past)
  matching = matching_lib.Matching(
    {field: ids(rows, 1, 1, candidates) for field, rows in _ROWS.items()},
    {field: jnp.float32(1) for field in _ROWS},
  )
  bias = draw(plain.capacity + 1)
  find = jax.jit(functools.partial(user_state.search, k=_TOP_K))
  calls = {
    'without': lambda: find(plain, query, bias),
    'with': lambda: find(holding, query, bias, matching=matching),
  }
  taken: dict[str, list[float]] = {name: [] for name in calls}
  for turn in range(_TURNS + 1):
    for name, call in calls.items():
      begin = time.process_time()
      jax.block_until_ready(call())
      if turn:  # The first compiles.
        taken[name].append(time.process_time() - begin)
  medians = {name: float(np.median(own)) for name, own in taken.items()}
  return [
    {
      'match terms': name,
      'candidates': candidates,
      'behaviors': length,
      'cpu_ms': 1e3 * seconds,
      'ratio': seconds / medians['without'],
    }
    for name, seconds in medians.items()
  ]
