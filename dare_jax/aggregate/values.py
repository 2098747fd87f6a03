"""The representation side of the behaviors that an aggregation pools."""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int


@struct.dataclass
class CountedBack:
  """Time vectors of whole windows, where distance is counted back from `end`.

  Stands for time[b, m, i] = rows[end[b, m] - i], without making it: the rows
  are the same for all moments, a moment's weights are moved to meet them.
  `more` is added to each, where it is given.

  Attributes:
    rows: float [p, t], the time vectors of the distances 0 to l.
    end: int [b, m], the index behind the last behavior that the moment sees.
    more: float [b, m, l, t], vectors of the behaviors that do not follow from
      their distance; None: there are none.
  """

  rows: Float[Array, 'p t']
  end: Int[Array, 'b m']
  more: Float[Array, 'b m l t'] | None = None

  def weigh(
    self, weights: Float[Array, 'b m *rounds l']
  ) -> Float[Array, 'b m *rounds t']:
    """Returns sum_i w_i rows[end - i]; weights from `end` on count nothing."""
    length = weights.shape[-1]
    flat = weights.reshape(self.end.size, -1, length)
    padded = jnp.pad(flat, ((0, 0), (0, 0), (length, 0)))
    # So that the behavior just before the moment is the last one.
    moved = jax.vmap(
      lambda rows, end: jax.lax.dynamic_slice_in_dim(rows, end, length, axis=1)
    )(padded, self.end.ravel())
    made = moved.reshape(weights.shape) @ self.rows[length:0:-1]
    if self.more is None:
      return made
    return made + jnp.einsum('bm...k,bmkd->bm...d', weights, self.more)


@struct.dataclass
class Values:
  """Representation vectors, of the behaviors kept or of whole windows.

  Of behaviors kept, content is `[b, m, c, k, d]` and time `[b, m, c, k, t]`.
  Of whole windows, content is `[b, l, d]`, shared by all moments and targets,
  and time `[b, m, l, t]` or `CountedBack`: nothing is copied for each target.

  Attributes:
    content: float [b, l, d] or [b, m, c, k, d], the vectors of item, category
      and further fields.
    time: vectors of the positions; None without time.
    mixed: whether a whole vector is the sum content + time, rather than content
      and time side by side.
  """

  content: Float[Array, 'b l d'] | Float[Array, 'b m c k d']
  time: Float[Array, 'b m l t'] | Float[Array, 'b m c k t'] | CountedBack | None
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
      return _apart(content)
    if isinstance(self.time, CountedBack):
      time = self.time.weigh(weights)
    else:
      time = jnp.einsum(equations[1], weights, self.time)
    content, time = _apart(content), _apart(time)
    if self.mixed:
      return content + time
    return jnp.concatenate([content, time], axis=-1)


def _apart(product: Array) -> Array:
  """Returns a product whose gradient is an array of its own.

  XLA for GPUs would make it within the kernels of the products that need it,
  reshaped, and finds no tiles for them: see `search.inner_product`.
  """
  return jax.lax.optimization_barrier(product)
