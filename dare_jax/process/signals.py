"""SIGINT (Ctrl-C) and SIGTERM: one rule for all commands.

The first asks the command to stop: what it does is given to `install`, and by
default raises `errors.Interrupted`. A second Ctrl-C ends the process at once.
Nothing is harmed by that, as nothing is by SIGKILL.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

from dare_jax import errors

EXIT_AT_ONCE = 128 + signal.SIGINT
# One Ctrl-C may arrive twice: from the terminal, and from a wrapper that passes
# it on.
_SAME_PRESS_SECONDS = 0.1
_INTERRUPTS: list[float] = []  # When Ctrl-C came.
_raised: list[int] = []  # The signal that `interrupt` has raised for.
_watched: list[int] = []  # The process that `watch` was called in.
at_once: list[Callable[[], Any]] = []  # Called before a second one ends us.


def interrupt(number: int) -> None:
  """Raises Interrupted, once: what cleans up then is not disturbed."""
  if not _raised:
    _raised.append(number)
    raise errors.Interrupted(number)


def leave_before_start(number: int) -> None:
  """Ends a command that is still importing its modules."""
  name = signal.Signals(number).name
  leave(f'stopped by {name}: nothing had begun', 128 + number)


def let_end(unused_number: int) -> None:
  """Lets a command end that has done its work; Ctrl-C twice ends it at once."""


def install(first: Callable[[int], None] = interrupt) -> None:
  """Takes both signals over; call it in the main thread.

  Args:
    first: called with each signal but a second Ctrl-C.
  """

  def handle(number: int, unused_frame: Any) -> None:
    if number == signal.SIGINT and os.getpid() not in _watched:
      _note_interrupt()
    if number == signal.SIGINT and len(_INTERRUPTS) > 1:
      return
    first(number)

  _raised.clear()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, handle)


def watch() -> None:
  """Lets a second Ctrl-C end the process even in the midst of a compilation.

  Python's handlers wait for the compiler to return. A thread does not; call
  this once the allocator is set, which must be before there are threads.
  """
  if os.getpid() in _watched:
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

  def read() -> None:
    while numbers := os.read(reader, 64):
      for number in numbers:
        if number == signal.SIGINT:
          _note_interrupt()

  _watched[:] = [os.getpid()]
  threading.Thread(target=read, daemon=True, name='signals').start()


def _note_interrupt() -> None:
  now = time.monotonic()
  if _INTERRUPTS and now - _INTERRUPTS[-1] < _SAME_PRESS_SECONDS:
    return
  _INTERRUPTS.append(now)
  if len(_INTERRUPTS) > 1:
    for function in at_once:
      function()
    leave('left at once, at the second Ctrl-C', EXIT_AT_ONCE)


def leave(line: str, code: int) -> None:
  """Ends the process, whatever its threads and its peers are at."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):  # Perhaps in the midst of a write.
      stream.flush()
  with contextlib.suppress(OSError):
    os.write(2, f'\n{line}\n'.encode())
  os._exit(code)


def _forget() -> None:
  """A forked process has no such thread; its signals are not its parent's."""
  if _watched:
    signal.set_wakeup_fd(-1)
    _watched.clear()
  _INTERRUPTS.clear()
  at_once.clear()


os.register_at_fork(after_in_child=_forget)
