"""Where background threads of several processes wait for each other."""

from __future__ import annotations

import jax
from jax._src import distributed

from dare_jax.parallel import processes


class PeerError(RuntimeError):
  """Another process failed at what this one takes part in."""


class Barriers:
  """The barriers of a series of saves, which notice a process that failed.

  All processes come to the same barriers in the same order, but one that failed
  leaves some out, where the others would wait for it. So barriers are numbered,
  whatever their key, and everyone tells its key: if these differ, all of them
  raise PeerError, here and at all barriers to come.

  JAX has no other way to talk from a background thread, where collectives
  might meet those of the training, than the client of its coordinator.
  """

  def __init__(self, name: str) -> None:
    """Makes them; `name` is the same on all processes, and theirs alone."""
    self._name = name
    self._count = 0
    self._has_parted = False

  def __call__(self, *, key: str, timeout_ms: int) -> None:
    """Waits for all processes, as orbax's `BarrierSyncFn`.

    Args:
      key: says what for.
      timeout_ms: most that it waits; it raises then, too.
    """
    if processes.is_alone():
      return
    if not self._has_parted:
      self._has_parted = len(self._meet(key, timeout_ms)) > 1
    if self._has_parted:
      raise PeerError('another process failed')

  def _meet(self, key: str, timeout_ms: int) -> set[str]:
    """Returns the keys that all processes came with."""
    client = distributed.global_state.client
    assert client is not None  # There are several processes.
    here, before = (f'{self._name}/{self._count - n}' for n in range(2))
    self._count += 1
    own = f'/{jax.process_index()}'
    client.key_value_set(here + own, key, allow_overwrite=True)
    client.wait_at_barrier(here, timeout_ms)
    if self._count > 1:
      client.key_value_delete(before + own)  # All have read it.
    return {told for _, told in client.key_value_dir_get(here + '/')}
