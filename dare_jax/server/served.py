"""Bundles that answer, each with its own cache and messages.

A request takes the `Served` of its first moment and uses no other, so that an
answer never mixes two bundles, whatever is swapped meanwhile.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dare_jax.bundle import times as times_lib
from dare_jax.logs import derived_fields
from dare_jax.server import cache as cache_lib
from dare_jax.server import messages as messages_lib
from dare_jax.server import problems


@dataclasses.dataclass(frozen=True)
class Served:
  """A bundle, the states that it has encoded, and the bodies for its fields."""

  bundle: Any
  cache: cache_lib.StateCache
  messages: messages_lib.Messages

  @classmethod
  def of(
    cls,
    bundle: Any,
    cache_bytes: int,
    max_candidates: int,
    times: times_lib.Times | None,
  ) -> Served:
    """Returns a bundle with an empty cache and the messages of its fields.

    Args:
      bundle: the bundle.
      cache_bytes: bytes that cached states may take.
      max_candidates: of a request.
      times: those of the log, where a model of the server reads them.
    """
    return cls(
      bundle,
      cache_lib.StateCache(cache_bytes),
      messages_lib.Messages(
        derived_fields.given(bundle.fields),
        bundle.context_fields,
        max_candidates,
        bundle.sets,
        bundle.user_fields,
        times,
      ),
    )

  @property
  def times(self) -> times_lib.Times:
    """The times of the log, for a bundle whose model reads them."""
    assert self.messages.times is not None
    return self.messages.times


class Slot:
  """The place of one model: the bundle that answers under its name.

  Attributes:
    loading: the bundle it was started with.
    served: the bundle that answers; None until its programs are compiled.
    refused: why the newest bundle at the watched path is not taken.
  """

  def __init__(self, loading: Served) -> None:
    self.loading = loading
    self.served: Served | None = None
    self.refused: str | None = None

  @property
  def known(self) -> Served:
    """The bundle that answers, or that will."""
    return self.loading if self.served is None else self.served

  def current(self) -> Served:
    """Returns the bundle for a request.

    Raises:
      Problem: 503: its programs are still being compiled.
    """
    if self.served is None:
      raise problems.later(503, 'not ready: the programs are being compiled', 5)
    return self.served
