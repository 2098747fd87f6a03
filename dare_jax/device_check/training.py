"""Training speed of some presets, by the rows of their item tables."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import jax
import numpy as np

from dare_jax.data import prefetcher
from dare_jax.device_check import made
from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib
from dare_jax.parallel import mesh as mesh_lib

_BATCHES = 8
_AHEAD = 4
_WARM_UP = 2
_AT_LEAST = 5
# A guess of what compiling and filling the tables take besides.
_SECONDS = 25.0
# Of the memory that a state takes, while it is made: random numbers.
_ROOM = 1.6


def run(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  """Times steps: on batches that wait, and on those that the host makes."""
  for moments, rows, name in itertools.product(
    sizes.batches, sizes.rows, sizes.models
  ):
    case = f'{name}, {rows:,} rows, {moments:,} moments a step'
    trainer = made.trainer(name, rows)
    needed = _ROOM * _state_bytes(trainer, sizes) / len(jax.devices())
    memory = (jax.devices()[0].memory_stats() or {}).get('bytes_limit')
    if memory is not None and needed > memory:
      report.skip(
        case,
        f'it needs {needed / 1e9:.0f} GB of {memory / 1e9:.0f} GB a device',
      )
    elif report.has_time(case, _SECONDS + 2 * sizes.step_seconds):
      with report.case(case):
        _measure(case, trainer, rows, moments, sizes, report)


def _state_bytes(trainer: Any, sizes: sizes_lib.Sizes) -> int:
  one = made.batch(0, 1000, trainer.mesh.size, sizes.length)
  return sum(x.nbytes for x in _shapes(trainer.abstract_state(one)))


def _shapes(state: Any) -> list[Any]:
  return [
    np.broadcast_to(np.zeros((), x.dtype), x.shape)
    for x in jax.tree.leaves(state)
  ]


def _measure(
  case: str,
  trainer: Any,
  rows: int,
  moments: int,
  sizes: sizes_lib.Sizes,
  report: reporting.Report,
) -> None:
  """Adds the rows of one training."""
  windows = -(-moments // trainer.mesh.size) * trainer.mesh.size
  find = made.rows_finder(trainer)
  drawn = [
    made.batch(number, rows, windows, sizes.length)
    for number in range(_BATCHES)
  ]
  capacities = np.max([find.capacities(find(one)) for one in drawn], 0)

  def prepared(number: int) -> Any:
    return find.widen(find(drawn[number % _BATCHES]), capacities)

  place = lambda batch: mesh_lib.place(trainer.mesh, batch)
  state = trainer.init(0, drawn[0])
  waiting = [place(prepared(number)) for number in range(_BATCHES)]
  targets = windows * made.CANDIDATES

  def steps(following: Any) -> float:
    """Returns the median time of a step, seconds, warm-up left out."""
    nonlocal state
    taken: list[float] = []
    while sum(taken) < sizes.step_seconds or len(taken) < _WARM_UP + _AT_LEAST:
      begin = time.perf_counter()
      state, loss = step(state, following(len(taken)))
      loss.block_until_ready()
      taken.append(time.perf_counter() - begin)
    if not np.isfinite(float(loss)):
      raise FloatingPointError(f'the loss is {float(loss)}')
    return statistics.median(taken[_WARM_UP:])

  begin = time.perf_counter()
  step = trainer.train_step.lower(state, waiting[0]).compile()
  report.add(case, 'compile_s', time.perf_counter() - begin)
  alone = steps(lambda number: waiting[number % _BATCHES])
  report.add(case, 'step_ms', 1e3 * alone, note='batches wait on the device')
  report.add(case, 'examples_per_s', targets / alone)
  del waiting
  fed = prefetcher.Prefetcher(prepared, 0, _AHEAD)
  try:
    whole = steps(lambda _: place(fed.next()))
  finally:
    fed.close()
  report.add(case, 'fed_step_ms', 1e3 * whole, note='rows found by the host')
  report.add(case, 'fed_examples_per_s', targets / whole)
  stats = jax.devices()[0].memory_stats() or {}
  report.add(
    case, 'peak_memory_gb', stats.get('peak_bytes_in_use', 0) / 1e9 or None,
    note='of the process so far',
  )  # fmt: skip
