"""What must hold on the device itself: repeatable, restorable, exact."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.device_check import made
from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib
from dare_jax.serving import user_state
from dare_jax.training import state as train_state

_STEPS = 4
# Losses of one device and of many: sums in another order.
_SAME_LOSS = 1e-5


def run(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  """Checks steps, checkpoints, states of users and several devices."""
  make = lambda number: made.batch(
    number, sizes.parity_rows, sizes.moments, sizes.length
  )
  devices = jax.devices()
  last: Any = None
  with report.case('a training repeats bit for bit'):
    trainer = made.trainer('dare', sizes.parity_rows, devices[:1])
    states = [_last_state(trainer, make) for _ in range(2)]
    different = _different(*states)
    report.add(
      'a training repeats bit for bit',
      'arrays_that_differ',
      len(different),
      passed=not different,
      note=', '.join(different)[:300],
    )
    last = states[0]
  with report.case('a checkpoint comes back bit for bit'):
    _check_checkpoint(last, report)
  with report.case('a behavior appended'):
    _check_append(sizes, report)
  if len(devices) < 2:
    report.skip('several devices', 'there is one')
    return
  with report.case('several devices'):
    losses = [
      [float(loss) for _, loss in made.train(trainer, _STEPS, make)]
      for trainer in (
        made.trainer('dare', sizes.parity_rows, devices[:1]),
        made.trainer('dare', sizes.parity_rows, devices),
      )
    ]
    apart = float(np.max(np.abs(np.subtract(losses[0], losses[1]))))
    report.add(
      f'losses of 1 and of {len(devices)} devices',
      'largest_difference',
      apart,
      passed=apart <= _SAME_LOSS,
    )


def _last_state(
  trainer: train_state.Trainer, make: Any
) -> train_state.TrainState:
  for state, _ in made.train(trainer, _STEPS, make):
    last = jax.device_get(state)
  return last


def _different(one: Any, other: Any) -> list[str]:
  """Returns the names of the arrays of two states that are not the same."""
  pairs = zip(
    jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True
  )
  return [
    jax.tree_util.keystr(path)
    for (path, left), right in pairs
    if np.asarray(left).tobytes() != np.asarray(right).tobytes()
  ]


def _check_checkpoint(last: Any, report: reporting.Report) -> None:
  """Writes a state from the device, and reads it back onto it."""
  case = 'a checkpoint comes back bit for bit'
  try:
    from dare_jax.checkpoints import checkpoint
  except ModuleNotFoundError as error:
    report.skip(case, f'it needs {error.name}, which is not installed')
    return
  placed = jax.tree.map(jnp.asarray, last)
  with tempfile.TemporaryDirectory() as folder:
    checkpoints = checkpoint.Checkpoints(pathlib.Path(folder) / 'checkpoints')
    description = {'data_fingerprint': 'random'}
    checkpoints.save_best(_STEPS, placed, description)
    found, _ = checkpoints.restore(_STEPS, placed, 'random')
    checkpoints.close()
  different = _different(last, found)
  report.add(
    case,
    'arrays_that_differ',
    len(different),
    passed=not different,
    note=', '.join(different)[:300],
  )


def _check_append(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  """Compares the keys of a state appended to with one built at once."""
  length = min(sizes.behaviors, 4096)
  keys = jax.random.normal(
    jax.random.key(0), (sizes.users, length + 1, sizes.dim)
  )
  mask = jnp.ones((sizes.users, length), bool)
  append = jax.jit(user_state.append, donate_argnums=0)
  query = jax.random.normal(jax.random.key(1), (sizes.users, 1, sizes.dim))
  for precision in user_state.PRECISIONS:
    case = f'a behavior appended, {precision} keys'
    grown = append(user_state.build(keys[:, :-1], mask, precision), keys[:, -1])
    fresh = user_state.build(keys[:, 1:], mask, precision)
    bias = jnp.zeros(grown.capacity + 1)
    found = [
      user_state.search(state, query, bias, sizes.top_k, backend='plain')
      for state in (grown, fresh)
    ]
    same = np.array_equal(found[0].distance, found[1].distance)
    report.add(
      case, 'finds_the_same', same, passed=same, note='as a state built anew'
    )
