"""The representation side of the behaviors that an aggregation pools."""

from __future__ import annotations

from flax import struct
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float


@struct.dataclass
class Values:
  """Representation vectors, of the behaviors kept or of whole windows.

  Of behaviors kept, content is `[b, m, c, k, d]` and time `[b, m, c, k, t]`.
  Of whole windows, content is `[b, l, d]`, shared by all moments and targets,
  and time `[b, m, l, t]`: nothing is copied for each target.

  Attributes:
    content: item, category and further fields.
    time: of the positions; None without time.
    mixed: whether a whole vector is content + time instead of content | time.
  """

  content: Float[Array, 'b l d'] | Float[Array, 'b m c k d']
  time: Float[Array, 'b m l t'] | Float[Array, 'b m c k t'] | None
  mixed: bool = struct.field(pytree_node=False, default=False)

  @property
  def whole_windows(self) -> bool:
    return self.content.ndim == 3

  def weigh(
    self, weights: Float[Array, 'b m c *rounds k']
  ) -> Float[Array, 'b m c *rounds v']:
    """Returns h = sum_i w_i r_i (arXiv 2410.02604, equation 2)."""
    if self.whole_windows:
      equations = 'bmc...k,bkd->bmc...d', 'bmc...k,bmkd->bmc...d'
    else:
      equations = ('bmc...k,bmckd->bmc...d',) * 2
    content = jnp.einsum(equations[0], weights, self.content)
    if self.time is None:
      return content
    time = jnp.einsum(equations[1], weights, self.time)
    if self.mixed:
      return content + time
    return jnp.concatenate([content, time], axis=-1)
