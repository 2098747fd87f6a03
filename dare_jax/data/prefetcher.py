"""A thread that makes batches ahead of their use."""

from __future__ import annotations

from collections.abc import Callable
import queue
import threading
import time
from typing import Any


class Prefetcher:
  """Makes items 0, 1, 2, .. of `make` in a thread, a few ahead of use.

  Attributes:
    wait_s: seconds that `next` has spent waiting for the thread.
  """

  def __init__(self, make: Callable[[int], Any], start: int, ahead: int):
    self.wait_s = 0.0
    self._queue: queue.Queue[Any] = queue.Queue(maxsize=max(1, ahead))
    self._stop = threading.Event()
    self._thread = threading.Thread(
      target=self._work, args=(make, start), daemon=True, name='prefetch'
    )
    self._thread.start()

  def _work(self, make: Callable[[int], Any], start: int) -> None:
    step = start
    while not self._stop.is_set():
      try:
        item = make(step)
      except BaseException as error:  # pylint: disable=broad-except
        item = error  # Raised where the item is asked for.
      while not self._stop.is_set():
        try:
          self._queue.put(item, timeout=0.1)
          break
        except queue.Full:
          continue
      if isinstance(item, BaseException):
        return
      step += 1

  def next(self) -> Any:
    """Returns the next item; raises what `make` raised."""
    begin = time.perf_counter()
    item = self._queue.get()
    self.wait_s += time.perf_counter() - begin
    if isinstance(item, BaseException):
      self._queue.put(item)  # The thread has ended: a later call raises too.
      raise item
    return item

  def close(self) -> None:
    """Stops the thread and waits for it."""
    self._stop.set()
    self._thread.join()

  def __enter__(self) -> Prefetcher:
    return self

  def __exit__(self, *unused: Any) -> None:
    self.close()
