"""Search: which behaviors of a history matter to a target, and how much."""

from dare_jax.search.inner_product import DotScorer
from dare_jax.search.inner_product import inner_product_scores
from dare_jax.search.methods import FullSearch
from dare_jax.search.methods import ScoreSearch
from dare_jax.search.selection import top_k
from dare_jax.search.view import SearchView

SCORERS = {'dot': DotScorer}
SEARCHES = {'all': FullSearch, 'score': ScoreSearch}

__all__ = [
  'DotScorer',
  'FullSearch',
  'SCORERS',
  'SEARCHES',
  'ScoreSearch',
  'SearchView',
  'inner_product_scores',
  'top_k',
]
