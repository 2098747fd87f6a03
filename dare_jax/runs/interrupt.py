"""SIGTERM or Ctrl-C as a request to stop at the next safe point."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import signal

from dare_jax import errors
from dare_jax.process import signals

_NOTHING_TO_SAVE = 'before training, there was nothing to save'


class StopSignal:
  """Notes the signals; the loop polls it between steps and evaluation batches.

  A signal during compilation is seen as soon as the compiler returns.
  """

  def __init__(self) -> None:
    self.requested = False
    self._at_once = False
    self._checks = 0
    self._name = 'SIGTERM'  # Of peers that were told of it.

  def install(self) -> None:
    """Takes over the signals; call it from the main thread, first thing."""
    signals.install(self._handle)

  def _handle(self, number: int) -> None:
    is_first = not self.requested
    self.requested = True
    if is_first:
      self._name = signal.Signals(number).name
      if self._at_once:
        raise self._stopped(_NOTHING_TO_SAVE)

  def _stopped(self, message: str) -> errors.Stopped:
    return errors.Stopped(f'by {self._name}: {message}')

  @contextlib.contextmanager
  def at_once(self) -> Iterator[None]:
    """Within: a signal raises at once, as there is no state to save yet.

    Of several processes none may leave while others wait for it: they raise
    together at the end.
    """
    from dare_jax.parallel import processes  # Not before the signal is ours.

    alone = processes.is_alone()
    self._at_once = alone
    try:
      if alone and self.requested:
        raise self._stopped(_NOTHING_TO_SAVE)
      yield
      if alone and self.requested:  # Code that swallows errors met the first.
        raise self._stopped(_NOTHING_TO_SAVE)
    finally:
      self._at_once = False
    if not alone:
      self._raise_together(_NOTHING_TO_SAVE)

  def check(self) -> None:
    """Raises Stopped if any process got a signal, or JAX a preemption notice.

    All processes call it at the same points, and all raise at the same one.
    """
    self._raise_together('the state is saved')

  def _raise_together(self, message: str) -> None:
    from dare_jax.parallel import processes  # As above.

    self._checks += 1
    if processes.any_of(self.requested or processes.preempted(self._checks)):
      raise self._stopped(message)
