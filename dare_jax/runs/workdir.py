"""A run's folder: who works in it, and whether there is a run to go on with."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import sys
import time
from typing import TypeVar

from etils import epath
import jax
import ml_collections

from dare_jax import errors
from dare_jax import storage
from dare_jax.experiments import run_config
from dare_jax.parallel import processes
from dare_jax.process import locks

T = TypeVar('T')
_LOCK = 'lock'
# A shared disk may show a new file that late: NFS, after a minute.
_SEEN_SECONDS = 90.0


def saved_steps(path: epath.Path, kind: str = 'last') -> list[int]:
  """Returns the steps of checkpoints, 'last' or 'best', perhaps damaged."""
  names = storage.names(path / 'checkpoints' / kind)
  return sorted(int(name) for name in names if name.isdigit())


def check_same_run(config: ml_collections.ConfigDict, path: epath.Path) -> None:
  """Refuses a folder that holds another run.

  What a start has left that failed, or was killed before its first checkpoint,
  is no run: another config may have the folder.

  Args:
    config: the config of the run that is to use the folder.
    path: the folder of the run.

  Raises:
    UsageError: names the first field that differs.
  """
  result, told = path / 'result.json', path / 'config.json'
  steps = [*saved_steps(path), *saved_steps(path, 'best')]
  is_run = bool(steps) or storage.read(result) is not None
  if is_run and storage.read(told) is not None:
    run_config.check_same_run(config, told)


class Workdir:
  """The folder of one run, for all its processes."""

  def __init__(
    self, path: epath.Path, config: ml_collections.ConfigDict
  ) -> None:
    """Touches nothing yet.

    Args:
      path: the folder of the run, on a disk or in a bucket.
      config: the config of the run.
    """
    self.path = path
    self._config = config
    self._holder = Holder(path)

  @property
  def has_lost(self) -> bool:
    """Whether another process has taken the folder over."""
    return self._holder.has_lost

  def open(self) -> bool:
    """Returns whether there are checkpoints, as `hold`.

    What may be a finished run is only looked at, until `hold` is called.
    """
    result = self.path / 'result.json'
    if not processes.in_turn(lambda: storage.read(result) is not None):
      return self.hold()
    return self._has_begun()

  def hold(self) -> bool:
    """Returns whether there are checkpoints; keeps other trainings out.

    Raises:
      UsageError: another process trains there, or has trained another run; or
        it cannot be written.
    """

    def take() -> None:
      # The first process alone holds it; all take part in the turns.
      if processes.is_first() and not self._holder.is_held:
        self._holder.take()

    processes.in_turn(take)
    return self._has_begun()

  def _has_begun(self) -> bool:
    processes.in_turn(lambda: check_same_run(self._config, self.path))
    return processes.largest(len(saved_steps(self.path))) > 0

  def claim(self, beside: Callable[[], None]) -> None:
    """Writes the config, so that the folder is seen to be this run's.

    Args:
      beside: writes what is to be there before the config.

    Raises:
      UsageError: it cannot be written, or a process does not see it.
    """
    first = processes.is_first()
    self.write(lambda: beside() if first else None)
    told = run_config.content(self._config, self.path)
    content = json.dumps(told, indent=1).encode()
    path = self.path / 'config.json'
    self.write(
      lambda: storage.write(path, content) if first else _await(path, content)
    )

  def write(self, function: Callable[[], T]) -> T:
    """Calls a function that writes, on the first process, then on the others.

    Raises:
      UsageError: what the function raises, or another process has taken over.
    """

    def guarded() -> T:
      self._holder.check()
      return function()

    return processes.in_turn(guarded)

  def release(self) -> None:
    """Lets others have the folder."""
    self._holder.release()


def _await(path: epath.Path, content: bytes) -> None:
  """Waits until a file that process 0 has written is seen here as well."""
  deadline = time.monotonic() + _SEEN_SECONDS
  while storage.read(path) != content:
    if time.monotonic() > deadline:
      raise errors.UsageError(
        f'{path}: process 0 has written it, process {jax.process_index()}'
        ' does not see that; use a workdir that all processes see, on a'
        ' shared disk or in a bucket.'
      )
    time.sleep(1)


class Holder:
  """Keeps other processes from training in a folder.

  On a disk, by a lock that the kernel frees when this process ends. A bucket
  has none, nor have some shared disks: there, the last that starts leaves a
  token, and who finds another's token than its own before it writes, stops.
  """

  def __init__(self, folder: epath.Path) -> None:
    """Prepares to hold the folder; `take` does it."""
    self._folder = folder
    self._path = folder / _LOCK
    self._lock: locks.Lock | None = None
    self._token: bytes | None = None
    self._made: list[epath.Path] = []
    self.has_lost = False

  @property
  def is_held(self) -> bool:
    return self._lock is not None or self._token is not None

  def take(self) -> None:
    """Holds the folder, which is made if it is not there.

    Raises:
      UsageError: another process holds it, or it cannot be written.
    """
    if storage.is_remote(self._folder):
      self._leave_token()
      return
    self._make_folder()
    try:
      with storage.told(self._path):
        self._lock = locks.Lock(self._path)
    except locks.HeldError as error:
      raise errors.UsageError(
        f'{self._folder}: {locks.describe(error.holder)}, is training there;'
        ' let it end, or stop it (SIGTERM, which saves), or choose another'
        ' --workdir.'
      ) from None
    except locks.UnsupportedError as error:
      print(
        f'{self._folder}: no locks on this disk ({error}); should another'
        ' training start there, this one stops before it next writes',
        file=sys.stderr,
        flush=True,
      )
      self._leave_token()

  def _make_folder(self) -> None:
    folder = self._folder
    while not folder.exists() and folder != folder.parent:
      self._made.append(folder)
      folder = folder.parent
    storage.make_folder(self._folder)

  def _leave_token(self) -> None:
    before = locks.Holder.parse(storage.read(self._path))
    if before is not None:
      print(
        f'{self._folder}: {before}, has not said that it ended; should it'
        ' still train there, it stops before it next writes',
        file=sys.stderr,
        flush=True,
      )
    token = locks.Holder.this_process().to_bytes()
    storage.write(self._path, token)
    self._token = token

  def check(self) -> None:
    """Call it before anything is written.

    Raises:
      UsageError: another process has taken the folder over.
    """
    if self._token is None:
      return
    found = storage.read(self._path)
    if found != self._token:
      self.has_lost = True
      other = locks.describe(locks.Holder.parse(found))
      raise errors.UsageError(
        f'{self._folder}: {other}, has taken over this training; this process'
        ' stops, and writes nothing more there.'
      )

  def release(self) -> None:
    """Lets others have the folder; one that was made for nothing is removed."""
    if self._lock is not None:
      self._lock.release()
    elif self._token is not None and not self.has_lost:
      # A bucket that refuses: the next start says that this one may be alive.
      with contextlib.suppress(errors.UsageError):
        storage.write(self._path, b'')
    self._lock = self._token = None
    for folder in self._made:
      try:
        pathlib.Path(os.fspath(folder)).rmdir()
      except OSError:  # Something is in it.
        break
    self._made.clear()
