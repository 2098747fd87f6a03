"""Micro-batches: requests of several users in one call of the programs.

The first that comes waits for others, at most so long, then scores for all;
they are threads that would wait anyway. An accelerator does sixteen users in
little more than the time of one. A CPU hardly gains: see docs/serving.md.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from concurrent import futures
import dataclasses
import threading
import time
from typing import Any


@dataclasses.dataclass(frozen=True)
class Item:
  """One user's request, as `Bundle.score` takes it, and its bundle."""

  bundle: Any
  history: Any
  candidates: Any
  context: Any
  explain: bool

  def kind(self) -> tuple[int, bool]:
    """Requests of one kind can share a call."""
    return id(self.bundle), self.explain


def score(items: Sequence[Item]) -> list[Any]:
  """Returns the scores of items of one kind, from one call."""
  first = items[0]
  return first.bundle.score(
    [item.history for item in items],
    [item.candidates for item in items],
    [item.context for item in items],
    explain=first.explain,
  )


class Batcher:
  """Scores items, together with those of other threads.

  Args:
    max_batch: users in a call; 1 makes no batches.
    wait_s: how long the first waits for others.
    observe: called with the number of users of each call.
  """

  def __init__(
    self,
    max_batch: int,
    wait_s: float,
    observe: Callable[[int], Any] = lambda size: None,
  ) -> None:
    self._max_batch, self._wait_s = max_batch, wait_s
    self._observe = observe
    self._full = threading.Condition()
    self._open: dict[tuple[int, bool], _Batch] = {}

  def score(self, item: Item) -> Any:
    """Returns the scores of an item, made in one call with others."""
    if self._max_batch == 1:
      self._observe(1)
      return score([item])[0]
    with self._full:
      batch = self._open.get(item.kind())
      leads = batch is None
      if batch is None:
        batch = self._open[item.kind()] = _Batch([], [])
      place = len(batch.items)
      batch.items.append(item)
      batch.done.append(futures.Future())
      if len(batch.items) == self._max_batch:
        del self._open[item.kind()]
        self._full.notify_all()
    if leads:
      self._lead(item.kind(), batch)
    return batch.done[place].result()

  def _lead(self, kind: tuple[int, bool], batch: _Batch) -> None:
    """Waits for others, then scores for all."""
    deadline = time.monotonic() + self._wait_s
    with self._full:
      self._full.wait_for(
        lambda: len(batch.items) == self._max_batch,
        max(deadline - time.monotonic(), 0),
      )
      if self._open.get(kind) is batch:
        del self._open[kind]
    self._observe(len(batch.items))
    try:
      scores = score(batch.items)
    except BaseException as error:  # Each thread that waits gets the error.
      for done in batch.done:
        done.set_exception(error)
      return
    for done, one in zip(batch.done, scores, strict=True):
      done.set_result(one)


@dataclasses.dataclass
class _Batch:
  items: list[Item]
  done: list[futures.Future[Any]]
