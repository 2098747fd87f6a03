"""The representation vectors of behaviors, as an aggregation pools them."""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import vector_moves

# Of products with zeros for all but the behaviors kept: as exact as their sum.
_EXACT = jax.lax.Precision.HIGHEST


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
    # So that the behavior just before the moment is the last one.
    moved = vector_moves.moved_right(weights, length - self.end)
    made = moved @ self.rows[length:0:-1]
    if self.more is None:
      return made
    return made + jnp.einsum('bm...k,bmkd->bm...d', weights, self.more)


@struct.dataclass
class AtDistance:
  """Time vectors of behaviors kept, as rows and which of them.

  Attributes:
    rows: float [p, t], the time vectors of the distances 0 to l.
    distance: int [b, m, c, k], of each behavior kept.
  """

  rows: Float[Array, 'p t']
  distance: Int[Array, 'b m c k']

  def weigh(
    self, weights: Float[Array, 'b m c *rounds k']
  ) -> Float[Array, 'b m c *rounds t']:
    """Returns sum_j w_j rows[distance_j]."""
    placed = _put(weights, self.distance, len(self.rows))
    return jnp.matmul(placed, self.rows, precision=_EXACT)


@struct.dataclass
class Values:
  """Representation vectors, of the behaviors kept or of whole windows.

  Of behaviors kept, content is `[b, m, c, k, d]` and time `[b, m, c, k, t]`.
  Of whole windows, content is `[b, l, d]`, shared by all moments and targets,
  and time `[b, m, l, t]` or `CountedBack`: nothing is copied for each target.
  Of behaviors kept that are not gathered, content is of whole windows, `index`
  says which they are, and time is `AtDistance`.

  Attributes:
    content: float [b, l, d] or [b, m, c, k, d], the vectors of item, category
      and further fields.
    time: vectors of the positions; None without time.
    mixed: whether a whole vector is the sum content + time, rather than content
      and time side by side.
    index: int [b, m, c, k], the behaviors kept; None: content is theirs, or all
      are.
  """

  content: Float[Array, 'b l d'] | Float[Array, 'b m c k d']
  time: (
    Float[Array, 'b m l t']
    | Float[Array, 'b m c k t']
    | CountedBack
    | AtDistance
    | None
  )
  mixed: bool = struct.field(pytree_node=False, default=False)
  index: Int[Array, 'b m c k'] | None = None

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
    if self.index is None:
      content = jnp.einsum(equations[0], weights, self.content)
    else:
      placed = _put(weights, self.index, self.content.shape[1])
      content = jnp.einsum(equations[0], placed, self.content, precision=_EXACT)
    if self.time is None:
      return _apart(content)
    if isinstance(self.time, CountedBack | AtDistance):
      time = self.time.weigh(weights)
    else:
      time = jnp.einsum(equations[1], weights, self.time)
    content, time = _apart(content), _apart(time)
    if self.mixed:
      return content + time
    return jnp.concatenate([content, time], axis=-1)

  def products(
    self, query: Float[Array, 'b m c n d']
  ) -> Float[Array, 'b m c n k']:
    """Returns the products of queries with the content of the behaviors."""
    rows = 'bkd' if self.whole_windows else 'bmckd'
    if self.index is None:
      return jnp.einsum(f'bmcnd,{rows}->bmcnk', query, self.content)
    all_of_them = jnp.einsum(
      'bmcnd,bld->bmcnl', query, self.content, precision=_EXACT
    )
    shape = *query.shape[:-1], self.index.shape[-1]
    index = jnp.broadcast_to(_of_rounds(self.index, query.ndim), shape)
    return vector_moves.taken(all_of_them, index)


def _of_rounds(
  index: Int[Array, 'b m c k'], ndim: int
) -> Int[Array, 'b m c *rounds k']:
  """Returns an index with axes of 1 before the last: `ndim` in all."""
  return jnp.expand_dims(index, tuple(range(3, ndim - 1)))


def _put(
  weights: Float[Array, 'b m c *rounds k'],
  index: Int[Array, 'b m c k'],
  length: int,
) -> Float[Array, 'b m c *rounds l']:
  """Returns weights of all places, 0 where none is put."""
  index = jnp.broadcast_to(_of_rounds(index, weights.ndim), weights.shape)
  return vector_moves.put(weights, index, length)


def _apart(product: Array) -> Array:
  """Returns a product whose gradient is an array of its own.

  XLA for GPUs would make it within the kernels of the products that need it,
  reshaped, and finds no tiles for them: see `search.inner_product`.
  """
  return jax.lax.optimization_barrier(product)
