"""SIGTERM as a request to stop at the next safe point."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import signal
from typing import Any

from dare_jax import errors

_NOTHING_TO_SAVE = 'before training, there was nothing to save'


class StopSignal:
  """Notes SIGTERM; the loop polls it between steps and evaluation batches.

  A signal during compilation is seen as soon as the compiler returns.
  """

  def __init__(self) -> None:
    self.requested = False
    self._at_once = False
    self._checks = 0

  def install(self) -> None:
    """Takes over SIGTERM; call it from the main thread, first thing."""
    signal.signal(signal.SIGTERM, self._handle)

  def _handle(self, *unused: Any) -> None:
    self.requested = True
    if self._at_once:
      raise errors.Stopped(_NOTHING_TO_SAVE)

  @contextlib.contextmanager
  def at_once(self) -> Iterator[None]:
    """Within: SIGTERM raises at once, as there is no state to save yet.

    Of several processes none may leave while others wait for it: they raise
    together at the end.
    """
    from dare_jax.parallel import processes  # Not before the signal is ours.

    alone = processes.is_alone()
    self._at_once = alone
    try:
      if alone and self.requested:
        raise errors.Stopped(_NOTHING_TO_SAVE)
      yield
    finally:
      self._at_once = False
    if not alone:
      self._raise_together(_NOTHING_TO_SAVE)

  def check(self) -> None:
    """Raises Stopped if any process got SIGTERM, or JAX a preemption notice.

    All processes call it at the same points, and all raise at the same one.
    """
    self._raise_together('the state is saved')

  def _raise_together(self, message: str) -> None:
    from dare_jax.parallel import processes  # As above.

    self._checks += 1
    if processes.any_of(self.requested or processes.preempted(self._checks)):
      raise errors.Stopped(message)
