"""What shapes a ranker."""

from __future__ import annotations

import dataclasses

from dare_jax import embeddings

# The time since behaviors; the weekday and the hour of the moment.
REAL_TIME = ('gap', 'weekday', 'hour')


@dataclasses.dataclass(frozen=True)
class ContextFeature:
  """A field of the user or the moment that only the head sees."""

  name: str
  vocab_size: int
  dim: int


@dataclasses.dataclass(frozen=True)
class RankerConfig:
  """Everything that shapes a ranker.

  Attributes:
    content: item, category and further fields of a behavior.
    time: the position feature.
    context: features of the head alone.
    plan: name in `embeddings.PLANS`.
    scorer: name in `search.SCORERS`.
    search: name in `search.SEARCHES`.
    aggregation: name in `aggregate.AGGREGATIONS`.
    interest_heads: heads of attention over the behaviors kept, the
      aggregation's own one included.
    top_k: number of behaviors that the search keeps.
    use_time: whether positions have vectors; False leaves `time` out.
    target_aware: feed the head target * interest as well (the paper's TR).
    only_product: feed the head nothing but target * interest (and context).
    match_fields: fields of which the model is told where a target's equals a
      behavior's (`match_terms`).
    real_time: the parts of real time that the model is told, among `REAL_TIME`;
      see `models.real_time`.
    history_mean: whether the heads see the mean of all behaviors, too
      (`history_mean`).
    exact_positions: behaviors back that have a time id of their own.
    hash_bits: bits of a SimHash code.
    hash_width: bits of one hash bucket's signature; divides hash_bits.
    search_dim: width of a search space of its own.
    num_clusters: bound of the cluster numbers of a window.
    hidden: widths of the main head.
    aux_hidden: widths of the auxiliary head.
    aux_head: whether there is an auxiliary head.
    projection_init: name in `embeddings.KERNEL_INITS`.
    attention_init: standard deviation s of fresh attention tables. Wide enough,
      a behavior that equals the target stands out from the first step on: its
      score is about s^2 sqrt(d), that of others s^2 from zero.
    representation_init: standard deviation of fresh representation and shared
      tables.
    two_outputs: whether heads have two outputs, click and no click, as was
      published; the logit is their difference.
    batch_statistics: whether evaluation, too, normalises by the statistics of
      its batch, as was published.
    norm_momentum: share of the running statistics that a step keeps; None: by
      the rows seen.
    keep_padding: whether padding takes part where fewer than `top_k` behaviors
      are there, as was published.
    scores_at_once: scores of behaviors for which memory is taken at once.
    kept_in_place: whether the behaviors kept, found as a list, are weighed
      where they lie in their windows, all others by 0, and not gathered: faster
      on TPUs. Not by aggregations that hash vectors, nor in models with real
      time. For logits alone on CPUs, see `aggregate.by_mask`.
    vectors: how the field `item_vector` is read, if its vectors are given.
    sets: fields whose values are sets, and what these are made of.
    compute_dtype: name in `layers.COMPUTE_DTYPES`, of vectors and activations;
      scores, softmax and batch statistics are float32 or wider anyway.
    axis_name: the mesh axis of the devices that share a batch, inside
      `jax.shard_map`: batch statistics are of all of it. None: this device
      alone.
  """

  content: tuple[embeddings.Feature, ...]
  time: embeddings.Feature
  context: tuple[ContextFeature, ...] = ()
  plan: str = 'decoupled'
  scorer: str = 'dot'
  search: str = 'score'
  aggregation: str = 'softmax'
  interest_heads: int = 1
  top_k: int = 20
  use_time: bool = True
  target_aware: bool = True
  only_product: bool = False
  match_fields: tuple[str, ...] = ()
  real_time: tuple[str, ...] = ()
  history_mean: bool = False
  exact_positions: int = 200
  hash_bits: int = 32
  hash_width: int = 3
  search_dim: int = 16
  num_clusters: int = 4096
  hidden: tuple[int, ...] = (200, 80)
  aux_hidden: tuple[int, ...] = (200,)
  aux_head: bool = True
  projection_init: str = 'lecun'
  attention_init: float = 0.5
  representation_init: float = 0.1
  two_outputs: bool = False
  batch_statistics: bool = False
  norm_momentum: float | None = None
  keep_padding: bool = False
  scores_at_once: int = 2**20
  kept_in_place: bool = False
  vectors: embeddings.GivenVectors | None = None
  sets: tuple[embeddings.SetShape, ...] = ()
  compute_dtype: str = 'float32'
  axis_name: str | None = None

  @property
  def features(self) -> tuple[embeddings.Feature, ...]:
    """All features that have tables."""
    return (*self.content, self.time) if self.use_time else self.content

  @property
  def has_time_beside(self) -> bool:
    """Whether vectors of time lie beside those of the content.

    Those of representation; a plan may mix positions and content instead.
    """
    if not self.use_time:
      return 'gap' in self.real_time
    projection = embeddings.PLANS[self.plan].projection
    return projection is None or projection.per_field

  @property
  def time_width(self) -> int:
    """Width of representation vectors of time."""
    width = self.time.dim('representation')
    if self.has_time_beside:
      return width
    return width + sum(f.dim('representation') for f in self.content)
