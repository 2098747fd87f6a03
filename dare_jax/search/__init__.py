"""Search: which behaviors of a history matter to a target, and how much."""

from dare_jax.search.cluster_search import ClusterSearch
from dare_jax.search.inner_product import DotScorer
from dare_jax.search.inner_product import inner_product_scores
from dare_jax.search.inner_product import TimeTwiceScorer
from dare_jax.search.methods import CategorySearch
from dare_jax.search.methods import FullSearch
from dare_jax.search.methods import ProjectedSearch
from dare_jax.search.methods import ScoreSearch
from dare_jax.search.network import NetworkScorer
from dare_jax.search.simhash import hamming_distance
from dare_jax.search.simhash import sign_codes
from dare_jax.search.simhash import SimHashSearch
from dare_jax.search.view import Attention
from dare_jax.search.view import SearchOptions
from dare_jax.search.view import SearchView
from dare_jax.topk.selection import sharded_top_k
from dare_jax.topk.selection import top_k

SCORERS = {
  'dot': DotScorer,
  'dot_time_twice': TimeTwiceScorer,
  'network': NetworkScorer,
}
SEARCHES = {
  'all': FullSearch,
  'score': ScoreSearch,
  'projected': ProjectedSearch,
  'category': CategorySearch,
  'simhash': SimHashSearch,
  'clusters': ClusterSearch,
}

__all__ = [
  'Attention',
  'CategorySearch',
  'ClusterSearch',
  'DotScorer',
  'FullSearch',
  'NetworkScorer',
  'ProjectedSearch',
  'SCORERS',
  'SEARCHES',
  'ScoreSearch',
  'SearchOptions',
  'SearchView',
  'SimHashSearch',
  'TimeTwiceScorer',
  'hamming_distance',
  'inner_product_scores',
  'sharded_top_k',
  'sign_codes',
  'top_k',
]
