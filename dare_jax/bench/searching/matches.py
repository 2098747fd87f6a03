"""What parts beyond DARE add to a search of cached keys, in CPU seconds.

Searches as a bundle has them: from a state with keys and ids to what was found,
with what the heads read of matches and of the history's mean. Models take
turns, so that what else runs on the machine slows all. CPU seconds are those of
this process, over all its threads; the ratio is to the first model.

    python -m dare_jax.bench matches --candidates=500 --length=10000
"""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import models
from dare_jax import types
from dare_jax.bundle.making import functions

# Items and categories of a history, of Zipf's law as in a log.
_ROWS = {'item': 100_000, 'category': 300}
_EXPONENT = 1.3
_TOP_K = 20
_MODELS: dict[str, dict[str, Any]] = {
  'dare': {},
  'dare, match terms': {'match_fields': ('all',)},
  'dare_match_mean': {},
}
_TURNS = 31
_TURN_SECONDS = 0.02  # of calls, at least


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  length = flags.DEFINE_integer(
    'length', 10_000, 'Behaviors of a user.', lower_bound=20
  )
  candidates = flags.DEFINE_integer(
    'candidates', 500, 'Targets of a user.', lower_bound=1
  )
  dim = flags.DEFINE_integer(
    'dim', 16, 'Width of each field, for each role.', lower_bound=1
  )
  return lambda: measure(length.value, candidates.value, dim.value)


def measure(length: int, candidates: int, dim: int) -> list[dict[str, Any]]:
  """Returns a row for each model."""
  rng = np.random.default_rng(0)

  def ids(rows: int, *shape: int) -> jax.Array:
    return jnp.asarray(2 + rng.zipf(_EXPONENT, shape) % (rows - 2), jnp.int32)

  draw = lambda count: {f: ids(rows, 1, count) for f, rows in _ROWS.items()}
  past, targets = draw(length), draw(candidates)
  calls = {}
  for name, options in _MODELS.items():
    calls[name] = _search(name, options, dim, past, targets)
  begin = time.process_time()
  calls['dare']()
  repeats = 1 + int(_TURN_SECONDS / (time.process_time() - begin))
  taken: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(_TURNS):
    for name, call in calls.items():
      begin = time.process_time()
      for _ in range(repeats):
        call()
      taken[name].append((time.process_time() - begin) / repeats)
  medians = {name: float(np.median(own)) for name, own in taken.items()}
  return [
    {
      'model': name,
      'candidates': candidates,
      'behaviors': length,
      'cpu_ms': 1e3 * seconds,
      'ratio': seconds / medians['dare'],
    }
    for name, seconds in medians.items()
  ]


def _search(
  name: str,
  options: dict[str, Any],
  dim: int,
  past: dict[str, jax.Array],
  targets: dict[str, jax.Array],
) -> Callable[[], Any]:
  """Returns a call that searches a state, compiled."""
  model = models.build(
    name.partition(',')[0],
    vocab_sizes=_ROWS,
    attention_dim=dim,
    representation_dim=dim,
    top_k=_TOP_K,
    **options,
  )
  length = past['item'].shape[1]
  batch = types.Batch(
    history=types.History(ids=past, mask=jnp.ones((1, length), bool)),
    end=jnp.full((1, 1), length, jnp.int32),
    targets=types.Targets(
      ids={field: own[:, None] for field, own in targets.items()},
      label=jnp.zeros((1, 1, targets['item'].shape[1])),
      weight=jnp.ones((1, 1, targets['item'].shape[1])),
    ),
  )
  variables = functions.flat(jax.jit(model.init)(jax.random.key(0), batch))
  served = functions.Served(model, length)
  count = jnp.full(1, length, jnp.int32)
  state = jax.jit(served.encode_history)(variables, past, count)
  state |= {f'ids/{field}': past[field] for field in served.slot_fields}
  find = jax.jit(served.search)
  call = lambda: jax.block_until_ready(find(variables, state, targets))
  call()
  return call
