"""The parts of a ranker that other packages make, for its config."""

from __future__ import annotations

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import search as searches
from dare_jax.aggregate import pooling
from dare_jax.models import ranker_config
from dare_jax.search import methods


def encoder(config: ranker_config.RankerConfig) -> embeddings.FeatureEncoder:
  """Returns what holds the tables and their maps."""
  return embeddings.FeatureEncoder(
    content=config.content,
    time=config.time if config.use_time else None,
    plan=embeddings.PLANS[config.plan],
    init_std={
      'attention': config.attention_init,
      'representation': config.representation_init,
    },
    projection_init=config.projection_init,
    compute_dtype=config.compute_dtype,
  )


def searcher(config: ranker_config.RankerConfig) -> methods.Search:
  """Returns what chooses the behaviors to keep."""
  return searches.SEARCHES[config.search](
    searches.SearchOptions(
      top_k=config.top_k,
      hash_bits=config.hash_bits,
      search_dim=config.search_dim,
      num_clusters=config.num_clusters,
      keep_padding=config.keep_padding,
    )
  )


def aggregator(config: ranker_config.RankerConfig) -> pooling.Aggregation:
  """Returns what makes an interest of the behaviors kept."""
  return aggregate.AGGREGATIONS[config.aggregation](
    aggregate.AggregationOptions(config.hash_bits, config.hash_width)
  )
