"""How far a run is, and how long its steps took."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import time

import jax

from dare_jax.training import state as train_state


@dataclasses.dataclass
class Progress:
  """What a checkpoint knows besides the training state.

  Attributes:
    step: number of steps done.
    train_time_s: wall time of the steps; no compilation, no evaluation.
    targets: unpadded targets trained on.
    evaluated_step: the last step that was validated.
    best_by: the metric that decides which is best, as `judge`; None: not
      settled yet.
    best_step: the validated step that is best; -1: none could be judged.
    best_val: metric -> value of that step on the validation split.
    metric_lines: lines written to metrics.jsonl.
    metric_crc: the CRC-32 of these lines.
    resumed_from: the steps at which the run was taken up again.
  """

  step: int = 0
  train_time_s: float = 0.0
  targets: int = 0
  evaluated_step: int = -1
  best_by: str | None = None
  best_step: int = -1
  best_val: dict[str, float] = dataclasses.field(default_factory=dict)
  metric_lines: int = 0
  metric_crc: int = 0
  resumed_from: list[int] = dataclasses.field(default_factory=list)

  @property
  def has_best(self) -> bool:
    return self.best_step >= 0

  @property
  def tested_step(self) -> int:
    """The best step; without one, the last."""
    return self.best_step if self.has_best else self.step


class Clock:
  """Adds the time of steps to a run's progress."""

  def __init__(self) -> None:
    self._started: float | None = None

  @contextlib.contextmanager
  def running(self, progress: Progress) -> Iterator[None]:
    """Counts the time inside."""
    self._started = time.perf_counter()
    try:
      yield
    finally:
      self._stop(progress)

  @contextlib.contextmanager
  def paused(
    self, state: train_state.TrainState, progress: Progress
  ) -> Iterator[None]:
    """Waits for the steps under way, and leaves out the time inside."""
    jax.block_until_ready(state.step)
    was_running = self._started is not None
    self._stop(progress)
    yield
    if was_running:
      self._started = time.perf_counter()

  def _stop(self, progress: Progress) -> None:
    if self._started is not None:
      progress.train_time_s += time.perf_counter() - self._started
      self._started = None
