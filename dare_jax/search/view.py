"""What a search sees of a batch, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses

from flax import struct
from jax import ad_checkpoint
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import types
from dare_jax import vector_moves
from dare_jax.search import matching as matching_lib

# Name of the indices found, for policies of `jax.checkpoint`.
CHOICE = 'choice'


@dataclasses.dataclass(frozen=True)
class SearchOptions:
  """Sizes of the searches; each reads what it needs.

  Attributes:
    top_k: number of behaviors to keep.
    hash_bits: bits of a SimHash code.
    search_dim: width of a search space of its own.
    num_clusters: bound of the cluster numbers of a window.
    keep_padding: whether padding takes part where fewer than `top_k` behaviors
      are there, as in the published code (a quirk: off but for comparisons).
  """

  top_k: int
  hash_bits: int = 32
  search_dim: int = 16
  num_clusters: int = 1
  keep_padding: bool = False


@struct.dataclass
class SearchView:
  """The attention side of b windows, m moments each, c targets at each moment.

  Attributes:
    query: attention vectors of the targets, without time.
    keys: attention vectors of the behaviors, without time; one set serves all
      moments. A behavior that is the target has the same vector wherever both
      read the same tables through the same maps.
    bias_by_distance: score of a position alone, for distances 0 to l; the
      same for all targets unless a plan mixes time and content.
    distance: how many behaviors back each one lies from each moment; 1 is the
      most recent.
    visible: True for real behaviors before the moment.
    target_ids: field -> ids of the targets.
    history: the behaviors of the windows.
    time_dim: width of a time vector; 0 without time.
    bias_by_behavior: score of the target's time with each behavior, where a
      plan mixes time and content; else None.
    end: the moments from which `distance` is counted back; None: distances are
      of another kind.
    matching: what the targets match, which no scorer reads: a model's scores
      are those of its scorer, of matches and of gaps.
    gap: seconds from each behavior to each moment, of a model with real time.
  """

  query: Float[Array, 'b m c d']
  keys: Float[Array, 'b l d']
  bias_by_distance: Float[Array, ' p'] | Float[Array, 'b m c p']
  distance: Int[Array, 'b m l']
  visible: Bool[Array, 'b m l']
  target_ids: Mapping[str, Int[Array, 'b m c']]
  history: types.History
  time_dim: int = struct.field(pytree_node=False, default=0)
  bias_by_behavior: Float[Array, 'b l'] | None = None
  end: Int[Array, 'b m'] | None = None
  matching: matching_lib.Matching = struct.field(
    default_factory=lambda: matching_lib.Matching({})
  )
  gap: Int[Array, 'b m l'] | None = None

  def time_bias(self) -> Float[Array, 'b m #c l']:
    """Returns what positions add to the score of each behavior."""
    table = self.bias_by_distance
    if self.end is None:
      bias = vector_moves.at_distance(table, self.distance)
    else:
      bias = vector_moves.counted_back(table, self.end, self.distance)
    if self.bias_by_behavior is None:
      return bias
    return bias + self.bias_by_behavior[:, None, None, :]

  def match_scores(self) -> Float[Array, 'b m c l'] | float:
    """Returns the part of each behavior's score that its matches add."""
    return matching_lib.scores(self.matching, self.history.ids)


Scorer = Callable[[SearchView], Float[Array, 'b m c l']]


@struct.dataclass
class Attention:
  """Scores over the whole history, for the auxiliary head.

  Attributes:
    scores: one score of each behavior for each target.
    mask: the behaviors that count; none at or past its moment's end.
    distance: how far back each behavior lies from each moment; None: as many
      behaviors as there are up to the end of the moment.
  """

  scores: Float[Array, 'b m c l']
  mask: Bool[Array, 'b m #c l']
  distance: Int[Array, 'b m l'] | None = None


def kept(
  view: SearchView,
  scores: Float[Array, 'b m c l'],
  indices: Int[Array, 'b m c k'],
  mask: Bool[Array, 'b m c k'],
) -> types.SearchResult:
  """Returns the result that keeps some behaviors.

  Args:
    view: the view that was searched.
    scores: scores of all behaviors; those kept are weighed by theirs.
    indices: the behaviors kept for each target, best first.
    mask: False where fewer than k were there.
  """
  # Choosing costs more than all the rest: a backward pass that makes the
  # scores anew is not to choose again.
  indices = ad_checkpoint.checkpoint_name(indices, CHOICE)
  take = lambda of_moment: jnp.take_along_axis(
    jnp.broadcast_to(of_moment[:, :, None, :], scores.shape), indices, axis=-1
  )
  if view.end is None:
    distance = take(view.distance)
  else:
    distance = jnp.maximum(view.end[:, :, None, None] - indices, 0)
  return types.SearchResult(
    indices=indices,
    scores=vector_moves.taken(scores, indices),
    mask=mask,
    distance=distance,
    gap=None if view.gap is None else take(view.gap),
  )


def all_places(
  view: SearchView,
  scores: Float[Array, 'b m c l'],
  mask: Bool[Array, 'b m #c l'],
) -> types.SearchResult:
  """Returns the result that keeps all behaviors of a mask, in their places.

  Args:
    view: the view that was searched.
    scores: scores of all behaviors.
    mask: the behaviors that are kept.
  """
  shape = scores.shape
  indices = jnp.arange(shape[-1], dtype=jnp.int32)
  every = lambda of_moment: jnp.broadcast_to(of_moment[:, :, None, :], shape)
  return types.SearchResult(
    indices=jnp.broadcast_to(indices, shape),
    scores=scores,
    mask=jnp.broadcast_to(mask, shape),
    distance=every(view.distance),
    everything=True,
    gap=None if view.gap is None else every(view.gap),
  )
