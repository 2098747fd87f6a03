"""How long a training step takes, whole and in parts, and what it moves."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import statistics
import time
from typing import Any

import jax
import numpy as np

from dare_jax import tables as tables_lib
from dare_jax import types
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import feed
from dare_jax.training import state as train_state

_WARM_UP = 3
_AT_LEAST = 5


class Timer:
  """Times the steps of one trainer on the batches of one pipeline."""

  def __init__(
    self,
    trainer: train_state.Trainer,
    placer: feed.Placer,
    make: Callable[[int], types.Batch],
    ahead: int,
    seed: int,
  ) -> None:
    """Makes a fresh state.

    Args:
      trainer: the trainer whose steps are timed.
      placer: puts batches on the trainer's mesh.
      make: returns a batch on the host, by its number.
      ahead: number of batches to make ahead.
      seed: seed of the initial state.
    """
    self._trainer = trainer
    self._placer = placer
    self._make = make
    self._ahead = ahead
    self._state = trainer.init(seed, make(0))
    self._seen: set[Any] = set()

  def whole(self, seconds: float, profile: str | None) -> dict[str, float]:
    """Times steps as a training runs them, batches made ahead in a thread.

    Each step ends before the next batch is asked for: waiting for data is time
    in which the device is idle. A step of a new shape, which compiles, is run
    but not counted.

    Args:
      seconds: about how many seconds to time, compilation left out.
      profile: a folder for a trace of some more steps; None: no trace.
    """
    times: list[tuple[float, float]] = []
    make = lambda number: (self._make(number), None)
    with feed.Feed(self._placer, make, 0, self._ahead) as batches:
      left = seconds
      while left > 0 or len(times) < _WARM_UP + _AT_LEAST:
        wait, spent, is_new = self._step(batches)
        if not is_new:
          times.append((wait, spent))
        if len(times) > _WARM_UP:
          left -= spent
      if profile is not None:
        self._trace(batches, profile)
    waits, steps = zip(*times[_WARM_UP:], strict=True)
    return {
      'step_ms': 1e3 * statistics.median(steps),
      'steps_per_s': len(steps) / sum(steps),
      'wait_share': sum(waits) / sum(steps),
    }

  def _step(self, batches: feed.Feed) -> tuple[float, float, bool]:
    """Returns the seconds of waiting and in all, and whether it compiled."""
    start = time.perf_counter()
    fed = batches.next()
    assert fed is not None  # Training batches never end.
    waited = time.perf_counter() - start
    shapes = tuple(x.shape for x in jax.tree.leaves(fed.batch))
    is_new = shapes not in self._seen
    self._seen.add(shapes)
    self._state, loss = self._trainer.train_step(self._state, fed.batch)
    loss.block_until_ready()
    return waited, time.perf_counter() - start, is_new

  def _trace(self, batches: feed.Feed, folder: str) -> None:
    with jax.profiler.trace(folder):
      for number in range(_AT_LEAST):
        with jax.profiler.StepTraceAnnotation('train', step_num=number):
          self._step(batches)

  def parts(self) -> dict[str, float]:
    """Times the step's parts, each compiled by itself, one after the other.

    `host` is making a batch and finding its rows, which a training does in a
    thread; `place` brings it to the device; `gather`, `model` (forward and
    backward) and `update` are the step's own functions. Compiled together, as
    the step is, they take less than their sum.
    """
    clock = _Clock()
    made = []
    for number in range(_WARM_UP + _AT_LEAST):
      with clock.of('host'):
        made.append(self._placer.rows(self._make(number)))
    capacities = np.max(list(map(self._placer.rows.capacities, made)), 0)
    programs = self._programs()
    for one in made:
      one = self._placer.rows.widen(one, capacities)
      with clock.of('place'):
        batch = jax.block_until_ready(self._placer.place(one, None).batch)
      with clock.of('gather'):
        read = jax.block_until_ready(programs['gather'](self._state, batch))
      with clock.of('model'):
        found = jax.block_until_ready(programs['model'](self._state, *read))
      with clock.of('update'):
        self._state = programs['update'](self._state, read[0], found)
        jax.block_until_ready(self._state)
    return {
      f'{name}_ms': 1e3 * statistics.median(times[_WARM_UP:])
      for name, times in clock.times.items()
    }

  def _programs(self) -> dict[str, Any]:
    """Returns the jitted parts of the step."""
    trainer = self._trainer
    specs = trainer.specs(self._state)
    tables: Any = trainer.tables.gathered_specs()
    split: Any = mesh_lib.SPLIT
    whole: Any = mesh_lib.WHOLE
    found = train_state.Gradients(whole, whole, tables, whole, whole, None)

    def part(function: Any, takes: Any, gives: Any, **options: Any) -> Any:
      mapped = jax.shard_map(
        function, mesh=trainer.mesh, in_specs=takes, out_specs=gives
      )
      return jax.jit(mapped, **options)

    return {
      'gather': part(trainer.gather_part, (specs, split), (split, tables)),
      'model': part(trainer.gradient_part, (specs, split, tables), found),
      'update': part(
        trainer.update_part, (specs, split, found), specs, donate_argnums=0
      ),
    }

  def moved(self) -> dict[str, float]:
    """Returns what a step reads and writes of tables, and its batch.

    Of a table by rows: each distinct row once to gather it, and once more with
    its slots to update it, when both are written too. Of others: all rows and
    slots, read and written; where large, the gathered rows as well.
    """
    batch = self._make(0)
    distinct = {
      field: len(
        np.unique(np.append(batch.history.ids[field], batch.targets.ids[field]))
      )
      for field in batch.targets.ids
    }
    total = 0.0
    tables, slots_of = jax.eval_shape(
      tables_lib.apart, self._state.tables['encoder'], self._state.table_slots
    )
    for name, table in tables.items():
      field = name.split('_')[0]
      slots = jax.tree.leaves(slots_of[name])
      of_rows = [slot for slot in slots if slot.shape[:1] == table.shape[:1]]
      row, slot = (
        sum(x.size * x.dtype.itemsize for x in arrays) / len(table)
        for arrays in ([table], of_rows)
      )
      is_large = field in self._trainer.vocab_sizes
      gathered = distinct[field] if is_large else 0
      by_rows = self._trainer.updater.is_row_sparse(name)
      moving = gathered if by_rows else len(table)
      total += gathered * row + moving * 2 * (row + slot)
    made = jax.tree.leaves(self._placer.rows(batch))
    return {
      'unique_items': distinct['item'],
      'table_mb_per_step': total / 1e6,
      'batch_mb_per_step': sum(x.nbytes for x in made) / 1e6,
    }


class _Clock:
  """Collects durations by name."""

  def __init__(self) -> None:
    self.times: dict[str, list[float]] = {}

  @contextlib.contextmanager
  def of(self, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    self.times.setdefault(name, []).append(time.perf_counter() - start)
