"""SimHash: codes of sign bits whose Hamming distance tells the angle."""

from __future__ import annotations

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int32
from jaxtyping import UInt32

from dare_jax.search import methods
from dare_jax.search import view as search_view

# Fixed projections: never trained, saved with the model.
COLLECTION = 'constants'
_WORD = 32


def random_directions(module: nn.Module, width: int, bits: int) -> Any:
  """Returns a module's fixed random directions: float [width, bits].

  Args:
    module: keeps them in its collection `constants`.
    width: width of the vectors that are hashed.
    bits: number of directions, one for each bit of a code.
  """
  variable = module.variable(
    COLLECTION,
    'directions',
    lambda: jax.random.normal(module.make_rng('params'), (width, bits)),
  )
  return jax.lax.stop_gradient(variable.value)


def sign_codes(
  vectors: Float[Array, '... d'], directions: Float[Array, 'd b']
) -> UInt32[Array, '... w']:
  """Returns the bits [x . r > 0], packed in uint32 words, lowest bit first.

  Two vectors at angle t differ in a share t / pi of the bits on average
  (Charikar, STOC 2002; ETA, arXiv 2108.04468). The last word is filled up
  with zeros.

  >>> import jax.numpy as jnp
  >>> sign_codes(jnp.array([[1.0, -1.0]]), jnp.eye(2)).tolist()
  [[1]]
  """
  bits = (vectors @ directions > 0).astype(jnp.uint32)
  fill = -bits.shape[-1] % _WORD
  bits = jnp.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, fill)])
  bits = bits.reshape(*bits.shape[:-1], -1, _WORD)
  places = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, bits.ndim - 1)
  return jnp.sum(bits << places, axis=-1, dtype=jnp.uint32)


def hamming_distance(
  a: UInt32[Array, '... w'], b: UInt32[Array, '... w']
) -> Int32[Array, ...]:
  """Returns in how many bits packed codes differ, int32.

  >>> import jax.numpy as jnp
  >>> a, b = jnp.array([6], jnp.uint32), jnp.array([3], jnp.uint32)
  >>> int(hamming_distance(a, b))
  2
  """
  counts = jax.lax.population_count(a ^ b)
  return jnp.sum(counts, axis=-1, dtype=jnp.int32)


class SimHashSearch(methods.Search):
  """ETA's search: the `top_k` behaviors nearest in Hamming distance.

  Codes are of the attention vectors without time. The many ties go to the most
  recent. The choice carries no gradient; the scorer weighs what is kept.
  """

  @nn.compact
  def rank(
    self, view: search_view.SearchView, scorer: search_view.Scorer
  ) -> methods.Ranking:
    """Ranks by the number of equal bits of the SimHash codes."""
    directions = random_directions(
      self, view.query.shape[-1], self.options.hash_bits
    )
    targets = sign_codes(view.query, directions)
    behaviors = sign_codes(view.keys, directions)
    differ = hamming_distance(
      targets[:, :, :, None, :], behaviors[:, None, None, :, :]
    )
    return methods.Ranking(-differ, scorer(view))
