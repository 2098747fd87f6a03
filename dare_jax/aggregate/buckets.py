"""SDIM: the behaviors that fall in the target's hash buckets, summed."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import types
from dare_jax.aggregate import pooling
from dare_jax.aggregate import values as value_lib
from dare_jax.search import simhash

_TINY = 1e-12


def signatures(
  vectors: Float[Array, '... d'], directions: Float[Array, 'd b'], width: int
) -> Int[Array, '... g']:
  """Returns the hash bucket of vectors in each of g = b / width rounds.

  Two vectors at angle t share a round's bucket with probability
  (1 - t / pi)^width (arXiv 2205.10249, section 4.3).

  Args:
    vectors: float [..., d], the vectors to hash.
    directions: float [d, b], a random direction for each bit.
    width: bits of a round; divides b.

  Returns:
    int32 in [0, 2^width).

  >>> import jax.numpy as jnp
  >>> signatures(jnp.array([1.0, -1.0, 2.0, 3.0]), jnp.eye(4), 2).tolist()
  [1, 3]
  """
  bits = (vectors @ directions > 0).astype(jnp.int32)
  bits = bits.reshape(*bits.shape[:-1], -1, width)
  places = jax.lax.broadcasted_iota(jnp.int32, bits.shape, bits.ndim - 1)
  return jnp.sum(bits << places, axis=-1)


class BucketPooling(pooling.Aggregation):
  """Mean over rounds of the normalised sum of the target's bucket.

  h = (1 / rounds) sum_g norm(sum of r_i over the behaviors i whose signature
  in round g is the target's), norm to length 1 (arXiv 2205.10249, equation
  14). Hashes are of the content; a position is part of what is summed only.
  An empty bucket gives zero. Only the sums carry gradient.
  """

  uses_scores: ClassVar[bool] = False

  @nn.compact
  def __call__(
    self,
    result: types.SearchResult,
    values: value_lib.Values,
    target: Float[Array, 'b m c d'],
  ) -> tuple[Float[Array, 'b m c v'], Float[Array, 'b m c k']]:
    """Returns the interest, and the share of rounds that each behavior met.

    Args:
      result: the behaviors kept.
      values: the representation vectors of the behaviors kept.
      target: the targets' content vectors.
    """
    directions = simhash.random_directions(
      self, target.shape[-1], self.options.hash_bits
    )
    width = self.options.hash_width
    wanted = signatures(target, directions, width)[..., None]
    buckets = signatures(values.content, directions, width)
    buckets = jnp.swapaxes(buckets, -1, -2)
    if values.whole_windows:
      buckets = buckets[:, None, None]
    meets = (buckets == wanted) & result.mask[:, :, :, None, :]
    meets = meets.astype(target.dtype)
    sums = values.weigh(meets)
    square = jnp.sum(jnp.square(sums), axis=-1, keepdims=True)
    # Zero sums keep a finite gradient.
    length = jnp.sqrt(jnp.where(square > _TINY**2, square, 1.0))
    interest = jnp.mean(sums / length, axis=-2)
    return interest, jnp.mean(meets, axis=-2)
