"""A new bundle while the server runs: compiled aside, then swapped.

The path of the bundle is looked at every few seconds. Where it leads to another
manifest, a symlink turned or a folder renamed into its place, the bundle there
is opened, checked, compiled and given the states of the users seen last. Only
then it answers. One that cannot be opened or does not fit is refused, with the
reason in the log, in the metrics and in the model's description; the one before
goes on answering.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
import pathlib
import threading
import time
from typing import Any

from dare_jax import errors
from dare_jax.server import logs
from dare_jax.server import problems
from dare_jax.server import served as served_lib
from dare_jax.server import service as service_lib
from dare_jax.server import stores

_MANIFEST = 'manifest.json'
# Users encoded before a swap, so that their first requests find a state.
_MOST_STATES = 10_000
_STATES_SECONDS = 30.0


def misfit(old: Any, new: Any) -> str | None:
  """Returns why a bundle cannot take another's place, None where it can.

  Clients send the same requests as before, and the same events are kept: so
  the model's name, the fields and what times count, if they are read, have to
  stay. So do the kind of raw values
  and most of the values themselves: a map that has lost most of the ids is
  that of another log.
  """
  for what in ('name', 'fields', 'context_fields', 'times'):
    before, now = getattr(old, what), getattr(new, what)
    if before != now:
      return f'its {what.replace("_", " ")} differ: {now!r}, not {before!r}'
  for field in old.fields:
    known = old.known_values(field, 1000)
    try:
      lost = int(new.unknown(field, new.ids(field, known)).sum())
    except errors.UsageError:  # Numbers, where there were texts.
      lost = len(known)
    if 2 * lost > len(known):
      return (
        f'its ids differ: {lost} of {len(known)} values of {field!r} that the'
        ' bundle before knows are unknown to it'
      )
  return None


class Swapper:
  """Watches the path of a bundle.

  Attributes:
    is_busy: True while a new bundle is opened and compiled.

  Args:
    path: the path of the bundle; may be a symbolic link.
    name: the name of its model.
    service: the service that answers with the bundle.
    open_bundle: opens what is at a path.
    every_s: how often to look; 0: never.
  """

  def __init__(
    self,
    path: str,
    name: str,
    service: service_lib.Service,
    open_bundle: Callable[[str], Any],
    every_s: float,
  ) -> None:
    self._path, self._service = path, service
    self._slot = service.slots[name]
    self._open, self._every_s = open_bundle, every_s
    self._seen = _identity(path)
    self._stop = threading.Event()
    self.is_busy = False

  def start(self) -> None:
    """Looks from now on, in a thread."""
    if not self._every_s:
      return
    threading.Thread(target=self._watch, name='swap', daemon=True).start()

  def stop(self) -> None:
    self._stop.set()

  def _watch(self) -> None:
    while not self._stop.wait(self._every_s):
      self.look()

  def look(self) -> None:
    """Takes or refuses what is at the path, if it is not what was there."""
    now = _identity(self._path)
    if now is None or now == self._seen:
      return
    self._seen = now
    before = self._slot.known
    self.is_busy = True
    try:
      reason = self._swap()
    except errors.UsageError as error:
      reason = str(error)
    except Exception as error:  # The old bundle goes on answering.
      reason = f'{type(error).__name__}: {error}'
    finally:
      self.is_busy = False
    if reason is None and self._slot.known is before:
      return  # The same content in another place.
    result = 'taken' if reason is None else 'refused'
    self._service.metrics.swaps.labels(result).inc()
    if reason is not None:
      self._slot.refused = reason
    version = self._slot.known.bundle.version
    logs.write('swap', result=result, reason=reason, version=version)

  def _swap(self) -> str | None:
    """Returns why the new bundle is refused, None if it answers."""
    service = self._service
    before = self._slot.known
    # The path may turn to another bundle while this one is read.
    bundle = self._open(os.path.realpath(self._path))
    if bundle.version == before.bundle.version:
      return None
    if reason := misfit(before.bundle, bundle):
      return reason
    if reason := too_long(bundle, service.store):
      return reason
    bundle.warm_up()
    after = service.serve(bundle)
    self._encode_ahead(before, after)
    service.take(after)
    self._forget_again(after)
    return None

  def _encode_ahead(
    self, before: served_lib.Served, after: served_lib.Served
  ) -> None:
    """Encodes users with the new bundle, those seen last first."""
    deadline = time.monotonic() + _STATES_SECONDS
    users = before.cache.newest(_MOST_STATES)
    for user in users:
      if time.monotonic() > deadline or self._stop.is_set():
        return
      with contextlib.suppress(problems.Problem, stores.StoreError):
        self._service.states.of_user(after, user, explain=False)

  def _forget_again(self, after: served_lib.Served) -> None:
    """Drops states of users who were deleted while theirs were made."""
    with contextlib.suppress(stores.StoreError):
      for user in after.cache.newest(_MOST_STATES):
        if self._service.store.head(user) is None:
          after.cache.discard(user)


def too_long(bundle: Any, store: stores.Store) -> str | None:
  """Returns why a store keeps too little for a bundle, None where it does."""
  if store.max_events >= bundle.history_length:
    return None
  return (
    f'--max_events={store.max_events}: the model is shown'
    f' {bundle.history_length} behaviors; keep at least as many events of a'
    ' user.'
  )


def _identity(path: str) -> tuple[Any, ...] | None:
  """Returns what tells one bundle at a path from another there."""
  manifest = pathlib.Path(os.path.realpath(path)) / _MANIFEST
  try:
    found = manifest.stat()
  except OSError:
    return None
  return str(manifest), found.st_ino, found.st_mtime_ns, found.st_size
