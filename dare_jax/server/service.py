"""What the routes share: the bundle that answers, the store, the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

# Appends wait for the disk, and share its turns: more of them, fewer turns.
_APPENDING_THREADS = 32
_T = TypeVar('_T')


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server takes, and how it works.

  Attributes:
    max_body_bytes: of a request; beyond it 413.
    max_queue: requests waiting or being answered; beyond it 429.
    time_limit_s: of a request, waiting included; beyond it 504.
    max_candidates: of a request; beyond it 400.
    drain_s: how long new requests are refused with 503 before the server
      leaves.
    cache_bytes: of cached states.
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
    served: the bundle that answers; None until its programs are compiled.
    loading: the bundle that will; tells of the model before that.
    refused: why the newest bundle at the watched path is not taken.
    draining: True once the server was asked to stop.
  """

  def __init__(
    self,
    loading: served_lib.Served,
    store: stores.Store,
    limits: Limits,
  ) -> None:
    self.loading, self.store, self.limits = loading, store, limits
    self.served: served_lib.Served | None = None
    self.refused: str | None = None
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
    cache = lambda: self.known.cache
    self.metrics.watch('queue', lambda: self._busy)
    self.metrics.watch('cache_bytes', lambda: cache().nbytes)
    self.metrics.watch('cache_users', lambda: len(cache()))
    self.metrics.watch('ready', lambda: self.is_ready)

  @property
  def is_ready(self) -> bool:
    return self.served is not None and not self.draining

  @property
  def known(self) -> served_lib.Served:
    """The bundle that answers, or that will."""
    return self.loading if self.served is None else self.served

  def take(self, served: served_lib.Served) -> None:
    """Answers from now on with a bundle, whose programs are compiled."""
    self.served = served
    self.refused = None
    self.metrics.bundle.clear()
    bundle = served.bundle
    self.metrics.bundle.labels(bundle.name, bundle.version).set(1)

  def current(self) -> served_lib.Served:
    """Returns the bundle for a request.

    Raises:
      Problem: 503: its programs are still being compiled.
    """
    if self.served is None:
      raise problems.later(503, 'not ready: the programs are being compiled', 5)
    return self.served

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
    """Ends the threads, once they have done what they are at."""
    self.scoring.shutdown()
    self.appending.shutdown()
    self.store.close()
