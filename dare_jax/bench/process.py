"""Fresh processes, so that no measurement sees what another one left behind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
import multiprocessing
import pathlib
import resource
import signal
from typing import Any
from typing import TypeVar

from dare_jax import errors
from dare_jax.process import runtime

_held: list[Any] = []  # What the process of a `Worker` keeps.

T = TypeVar('T')


def run_fresh(
  settings: runtime.Options | None, function: Callable[..., T], *args: Any
) -> T:
  """Returns what a function returns in a new process, or raises likewise.

  Args:
    settings: settings of the process, applied before anything is imported that
      starts threads; None leaves all at its default.
    function: a function that a module defines.
    *args: arguments, which can be pickled.

  Raises:
    UsageError: the process was killed.
  """
  with _pool(settings) as pool:
    return _result(pool.submit(function, *args))


class Worker:
  """A fresh process that makes an object and then calls its methods."""

  def __init__(
    self, settings: runtime.Options | None, make: Callable[..., Any], *args: Any
  ) -> None:
    """Makes the object there: `make(*args)`; raises what that raises.

    Args:
      settings: settings of the process; None leaves all at its default.
      make: a class or function that a module defines.
      *args: arguments, which can be pickled.
    """
    self._pool = _pool(settings)
    try:
      _result(self._pool.submit(_hold, make, *args))
    except BaseException:
      self.close()
      raise

  def call(self, method: str, *args: Any) -> Any:
    """Returns what a method of the object returns there."""
    return _result(self._pool.submit(_call, method, *args))

  def close(self) -> None:
    """Ends the process."""
    self._pool.shutdown()


def _pool(settings: runtime.Options | None) -> futures.ProcessPoolExecutor:
  context = multiprocessing.get_context('spawn')
  return futures.ProcessPoolExecutor(
    1, context, initializer=_begin, initargs=(settings,)
  )


def _begin(settings: runtime.Options | None) -> None:
  # Ctrl-C reaches all processes of a terminal; who started this one ends it.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  if settings is not None:
    runtime.configure(settings)


def _result(future: futures.Future[T]) -> T:
  try:
    return future.result()
  except futures.process.BrokenProcessPool:
    raise errors.UsageError(
      'a process that was measured has been killed, most likely because memory'
      ' ran out; measure smaller sizes.'
    ) from None
  except errors.Interrupted:
    for child in multiprocessing.active_children():
      child.kill()
    raise


def _hold(make: Callable[..., Any], *args: Any) -> None:
  _held.append(make(*args))


def _call(method: str, *args: Any) -> Any:
  return getattr(_held[-1], method)(*args)


def peak_mb() -> float:
  """Returns the most memory that this process has held, MB.

  `getrusage` alone will not do: there, a process starts with its parent's.
  """
  status = pathlib.Path('/proc/self/status')
  if status.is_file():
    kilobytes = status.read_text().split('VmHWM:')[1].split()[0]
    return int(kilobytes) * 1024 / 1e6
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
