"""What the routes share: the bundle that answers, the store, the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Sequence
from concurrent import futures
import dataclasses
import threading
import time
from typing import Any
from typing import TypeVar

from dare_jax import errors
from dare_jax.server import batching
from dare_jax.server import metrics as metrics_lib
from dare_jax.server import problems
from dare_jax.server import scorer as scorer_lib
from dare_jax.server import served as served_lib
from dare_jax.server import states as states_lib
from dare_jax.server import stores

# Appends wait for the disk and share commits: the more wait, the fewer commits.
_APPENDING_THREADS = 32
_T = TypeVar('_T')


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server takes, and how it works.

  Attributes:
    max_body_bytes: largest body of a request, in bytes; beyond it the answer is
      413.
    max_queue: requests waiting or being answered; beyond it 429.
    time_limit_s: longest time of a request in seconds, waiting included; beyond
      it the answer is 504.
    max_candidates: largest number of candidates of a request; beyond it the
      answer is 400.
    drain_s: how long new requests are refused with 503 before the server
      leaves.
    cache_bytes: bytes that cached states may take.
    score_threads: requests worked on at a time, besides those of a batch.
    max_batch: users in one call of the programs; 1 makes no batches.
    batch_wait_s: how long the first of a batch waits for others.
  """

  max_body_bytes: int = 8 << 20
  max_queue: int = 64
  time_limit_s: float = 5.0
  max_candidates: int = 5000
  drain_s: float = 5.0
  cache_bytes: int = 1 << 30
  score_threads: int = 2
  max_batch: int = 1
  batch_wait_s: float = 0.002

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      least = 0 if field.name in ('drain_s', 'batch_wait_s') else 1e-9
      if value < least:
        raise errors.UsageError(
          f'{field.name}={value}: expected a positive number.'
        )


class Service:
  """One server.

  Attributes:
    slots: model name -> the place of its bundle; `main` is the first.
    draining: True once the server was asked to stop.
  """

  def __init__(
    self,
    bundles: Sequence[Any],
    store: stores.Store,
    limits: Limits,
  ) -> None:
    """Takes no requests yet, see `take`.

    Args:
      bundles: bundles of different names over the same fields.
      store: the store of users' events.
      limits: the limits of requests, of the cache and of batches.
    """
    self.store, self.limits = store, limits
    self._num_models = len(bundles)
    self._times = next((b.times for b in bundles if b.times), None)
    self.slots = {
      bundle.name: served_lib.Slot(self.serve(bundle)) for bundle in bundles
    }
    self.main = next(iter(self.slots.values()))
    self.draining = False
    self.metrics = metrics_lib.Metrics()
    self.states = states_lib.States(store, self.metrics)
    batcher = batching.Batcher(
      limits.max_batch,
      limits.batch_wait_s,
      self.metrics.batch_users.observe,
    )
    self.scorer = scorer_lib.Scorer(self.states, batcher, self.metrics)
    # One batch is gathered while another is scored.
    gathering = 2 * limits.max_batch if limits.max_batch > 1 else 1
    self.scoring = futures.ThreadPoolExecutor(
      max(limits.score_threads, gathering), 'score'
    )
    self.appending = futures.ThreadPoolExecutor(_APPENDING_THREADS, 'append')
    self._lock = threading.Lock()
    self._busy = 0
    self._watch()

  def _watch(self) -> None:
    caches = lambda: [slot.known.cache for slot in self.slots.values()]
    self.metrics.watch('queue', lambda: self._busy)
    self.metrics.watch('cache_bytes', lambda: sum(c.nbytes for c in caches()))
    self.metrics.watch('cache_users', lambda: sum(map(len, caches())))
    self.metrics.watch('ready', lambda: self.is_ready)

  def serve(self, bundle: Any) -> served_lib.Served:
    """Returns a bundle with an empty cache, its part of the memory for all."""
    limits = self.limits
    cache_bytes = limits.cache_bytes // self._num_models
    return served_lib.Served.of(
      bundle, cache_bytes, limits.max_candidates, self._times
    )

  @property
  def is_ready(self) -> bool:
    has_all = all(slot.served is not None for slot in self.slots.values())
    return has_all and not self.draining

  def take(self, served: served_lib.Served) -> None:
    """Answers from now on with a bundle, whose programs are compiled."""
    slot = self.slots[served.bundle.name]
    slot.served, slot.refused = served, None
    self.metrics.bundle.clear()
    for slot in self.slots.values():
      bundle = slot.known.bundle
      self.metrics.bundle.labels(bundle.name, bundle.version).set(1)

  def slot(self, name: str) -> served_lib.Slot:
    """Returns the place of a model.

    Raises:
      Problem: 404: there is none of this name.
    """
    if name not in self.slots:
      raise problems.Problem(
        404, 'model', f'expected one of {", ".join(self.slots)}'
      )
    return self.slots[name]

  def forget(self, user: str) -> bool:
    """Deletes a user's events and states; returns whether there were any."""
    found = self.store.delete(user)
    for slot in self.slots.values():
      slot.known.cache.discard(user)
    return found

  async def run(self, pool: futures.Executor, work: Callable[[], _T]) -> _T:
    """Returns what `work` returns in a thread, within the limits.

    Raises:
      Problem: 429, the queue is full; 504, it took too long; 503, the store
        does not answer.
    """
    with self._lock:
      if self._busy >= self.limits.max_queue:
        raise problems.later(
          429, f'{self._busy} requests are waiting; try again later'
        )
      self._busy += 1
    begin = time.monotonic()

    def in_time() -> _T:
      """Does the work unless its time has passed in the queue."""
      waited = time.monotonic() - begin
      self.metrics.stage_seconds.labels('queue').observe(waited)
      if waited > self.limits.time_limit_s:
        raise self._too_late()
      return work()

    future = pool.submit(in_time)
    future.add_done_callback(self._done)
    try:
      return await asyncio.wait_for(
        asyncio.wrap_future(future), self.limits.time_limit_s
      )
    except TimeoutError:
      raise self._too_late() from None
    except stores.StoreError as error:
      raise problems.later(503, f'the store does not answer: {error}') from None

  def _done(self, unused_future: Any) -> None:
    with self._lock:
      self._busy -= 1

  def _too_late(self) -> problems.Problem:
    return problems.Problem(
      504, '', f'no answer within {self.limits.time_limit_s:g} s'
    )

  def close(self) -> None:
    """Ends the threads, once they have finished their requests."""
    self.scoring.shutdown()
    self.appending.shutdown()
    self.store.close()
