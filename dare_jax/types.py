"""The shape glossary: the structures that flow from the data to the head.

Letters: b windows in a batch, m moments of a window, c candidate targets of a
moment, l behaviors of a history, k behaviors kept by the search, d width.

A window holds one user's behaviors, oldest first, right-aligned: padding comes
first. A moment `m` sees the behaviors at indices from `start[b, m]` on, below
`end[b, m]`; positions are counted back from there, the most recent one is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import struct
import jax.numpy as jnp
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

# np.ndarray while batches are made on the host, jax.Array afterwards.
Array = Any


@struct.dataclass
class Clusters:
  """A grouping of each user's behaviors; both int32, 0 in padding.

  `cluster` numbers a user's groups from 0; `rank` orders the members of a
  group, 0 is the nearest to its centroid.
  """

  cluster: Int[Array, 'b l']
  rank: Int[Array, 'b l']


@struct.dataclass
class History:
  """Behaviors of b users. `ids[field]` is int32, 0 where `mask` is False.

  `clusters` is for searches over clusters; None: those that the model has for
  `row`, or each behavior by itself. `row` is 1 + the behavior's row in the
  history store, 0 in padding; only a search over clusters needs it. `time` is
  for models with real time: whole seconds, int32, after an origin of each
  user's, a Monday at 00:00 UTC; any in padding.
  """

  ids: Mapping[str, Int[Array, 'b l']]
  mask: Bool[Array, 'b l']
  clusters: Clusters | None = None
  row: Int[Array, 'b l'] | None = None
  time: Int[Array, 'b l'] | None = None


@struct.dataclass
class Contrast:
  """Candidates that only the loss over a moment's candidates sees.

  `mask` says which are; `log_ratio` is the logarithm of how much likelier each
  is drawn than a sampled negative would be, 0 elsewhere.
  """

  mask: Bool[Array, 'b m c']
  log_ratio: Float[Array, 'b m c']


@struct.dataclass
class Targets:
  """Targets to score. Weight 0 marks padding: no loss or metric sees it.

  `contrast` marks candidates of weight 0 that are no padding; None: there are
  none.
  """

  ids: Mapping[str, Int[Array, 'b m c']]
  label: Float[Array, 'b m c']
  weight: Float[Array, 'b m c']
  contrast: Contrast | None = None


@struct.dataclass
class Batch:
  """One step's input; `context[field]`, int32, is for the head alone.

  `start` bounds what a moment sees where moments share a window that is longer
  than the history each may see; None: from the window's beginning.

  `rows[field]`, where a field is in it, int32 and ascending, are the table rows
  that the batch reads, as positions in storage (`tables.layout`); the batch's
  ids of that field then point into it. It starts with the padding row; what
  lies beyond the table is filling. On several devices, each has its own.

  `now` are the times of the moments, as `History.time` is of the behaviors.
  """

  history: History
  end: Int[Array, 'b m']
  targets: Targets
  context: Mapping[str, Int[Array, 'b m']] = struct.field(default_factory=dict)
  start: Int[Array, 'b m'] | None = None
  rows: Mapping[str, Int[Array, ' u']] = struct.field(default_factory=dict)
  now: Int[Array, 'b m'] | None = None

  def distance(self) -> Int[Array, 'b m l']:
    """Returns how far back each behavior lies from each moment.

    The most recent one is at 1; a behavior at or past the moment's end, which
    the moment does not see, at 0.
    """
    index = jnp.arange(self.history.mask.shape[1], dtype=self.end.dtype)
    return jnp.maximum(self.end[:, :, None] - index[None, None, :], 0)

  def visible(self) -> Bool[Array, 'b m l']:
    """Returns where a moment has a real behavior from its start to its end."""
    index = jnp.arange(self.history.mask.shape[1], dtype=self.end.dtype)
    index = index[None, None, :]
    seen = self.history.mask[:, None, :] & (index < self.end[:, :, None])
    if self.start is None:
      return seen
    return seen & (index >= self.start[:, :, None])


@struct.dataclass
class Matches:
  """How often a field of a target occurs in what its moment sees.

  `count` is of the behaviors with the same id; `distance` is how far back the
  most recent of them lies, 0 where there is none; `gap` how many seconds ago it
  was, -1 where there is none, of a model with real time. All int32.
  """

  count: Int[Array, 'b m c']
  distance: Int[Array, 'b m c']
  gap: Int[Array, 'b m c'] | None = None


@struct.dataclass
class SearchResult:
  """The behaviors that a search kept for each target.

  `indices` point into the window; `scores` carry gradient, `indices` do not;
  `mask` is False where fewer than k behaviors were there to keep. `distance`
  is how far back each lies from its moment. `everything` says that all are
  in their places: index i is behavior i, k = l. `matches[field]`, of a model
  with match terms, is of the whole history. Of a model with real time, `gap` is
  the seconds from each behavior to its moment, and `since_last` those from the
  most recent behavior, -1 where there is none.
  `mean`, where the heads see it, is the mean of all representation vectors in
  the whole history.
  """

  indices: Int[Array, 'b m c k']
  scores: Float[Array, 'b m c k']
  mask: Bool[Array, 'b m c k']
  distance: Int[Array, 'b m c k']
  everything: bool = struct.field(pytree_node=False, default=False)
  matches: Mapping[str, Matches] = struct.field(default_factory=dict)
  gap: Int[Array, 'b m c k'] | None = None
  since_last: Int[Array, 'b m'] | None = None
  mean: Float[Array, 'b m v'] | None = None


@struct.dataclass
class RankerOutput:
  """`logits` are of a click. `aux_logits` is None unless the aux head ran.

  `weights` say how much each behavior of `search` counts in the interest.
  """

  logits: Float[Array, 'b m c']
  aux_logits: Float[Array, 'b m c'] | None
  search: SearchResult
  weights: Float[Array, 'b m c k']
