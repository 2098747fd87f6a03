"""One bundle that answers, with what belongs to it alone.

A request takes the `Served` of its first moment and uses no other, so that an
answer never mixes two bundles, whatever is swapped meanwhile.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dare_jax.server import cache as cache_lib
from dare_jax.server import messages as messages_lib


@dataclasses.dataclass(frozen=True)
class Served:
  """A bundle, the states that it has encoded, and the bodies for its fields."""

  bundle: Any
  cache: cache_lib.StateCache
  messages: messages_lib.Messages

  @classmethod
  def of(cls, bundle: Any, cache_bytes: int, max_candidates: int) -> Served:
    return cls(
      bundle,
      cache_lib.StateCache(cache_bytes),
      messages_lib.Messages(
        bundle.fields, bundle.context_fields, max_candidates
      ),
    )
