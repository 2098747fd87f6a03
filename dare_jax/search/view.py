"""What a search sees of a batch."""

from __future__ import annotations

from collections.abc import Mapping

from flax import struct
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int


@struct.dataclass
class SearchView:
  """The attention side of b windows, m moments each, c targets at each moment.

  Attributes:
    query: attention vectors of the targets.
    keys: attention vectors of the behaviors; one set serves all moments.
    time_bias: score of a behavior's position alone, the same for all targets.
    visible: True for real behaviors before the moment.
    target_ids: field -> ids of the targets.
    history_ids: field -> ids of the behaviors.
  """

  query: Float[Array, 'b m c d']
  keys: Float[Array, 'b l d']
  time_bias: Float[Array, 'b m l']
  visible: Bool[Array, 'b m l']
  target_ids: Mapping[str, Int[Array, 'b m c']]
  history_ids: Mapping[str, Int[Array, 'b l']]
