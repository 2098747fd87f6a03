"""Rows of scores as the parts that are added up: content, positions, matches.

Written out once, scores are read and written again by all that is done to them:
a bias added, the invisible taken out, maxima of neighbours taken. Here they
stay apart until they are ranked, so that one loop does it all.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax import shapes
from dare_jax.topk import ordering

# Neighbours whose maximum is taken: the width at which XLA's CPU backend takes
# maxima 16 at a time.
GROUP = 16


@struct.dataclass
class Match:
  """What adds to scores where a behavior has the id of a target.

  Attributes:
    ids: int32 [b, 1, n], ids of the behaviors.
    targets: int32 [b, c, 1], ids of the targets.
    bias: scalar that a match adds to a score.
  """

  ids: Any
  targets: Any
  bias: Any

  def scores(self, ids: Any, targets: Any) -> Any:
    """Returns what some of the ids add to scores."""
    return jnp.where(ids == targets, self.bias, jnp.zeros_like(self.bias))


@struct.dataclass
class Rows:
  """Scores of b users times c targets, each a row of n behaviors.

  A row is a ring: behaviors follow the most recent one backwards, around the
  end. Fields are untyped: transformations of JAX fill them with other things.

  Attributes:
    content: float32 [b, c, n], scores without a position.
    visible: bool, broadcasts to `content`; False is never kept.
    newest: int32 [b, 1, 1], the most recent behavior of each user; or of all,
      [1, 1, 1].
    bias: float32 [2 n], scores of the positions from the oldest to the most
      recent, twice: where a ring begins, so does a slice. None: no bias.
    matches: a `Match` for each match field.
    added: float32 [b, 1, n], what else adds to the scores of each behavior, the
      same for all targets; None: nothing.
  """

  content: Any
  visible: Any
  newest: Any
  bias: Any = None
  matches: Any = ()
  added: Any = None

  @property
  def length(self) -> shapes.Size:
    """Behaviors of a row, n."""
    return self.content.shape[-1]

  @property
  def count(self) -> shapes.Size:
    """Rows, b c."""
    return self.content.shape[0] * self.content.shape[1]

  def scores(self) -> Float[Array, 'b c n']:
    """Returns the sums of content and of what adds to it."""
    return self._sum(lambda scores, visible: scores)

  def orders(self) -> Int[Array, 'r n']:
    """Returns integers that compare as behaviors rank, in b c rows."""
    index = jnp.arange(self.length, dtype=jnp.int32)[None, None]
    found = self._sum(lambda x, seen: _orders(x, seen, index, self.length))
    return found.reshape(-1, self.length)

  def maxima(self) -> Int[Array, 'r g']:
    """Returns the best order of each group of neighbours, the last filled."""
    fill = -self.length % GROUP
    index = jnp.arange(self.length, dtype=jnp.int32)[None, None]

    def of_groups(scores: Any, visible: Any) -> Any:
      orders = _orders(scores, visible, index, self.length)
      edge = [(0, 0), (0, 0), (0, fill)]
      orders = jnp.pad(orders, edge, constant_values=ordering.LOWEST)
      return jnp.max(orders.reshape(*orders.shape[:2], -1, GROUP), axis=-1)

    return self._sum(of_groups).reshape(self.count, -1)

  def members(self, group: Int[Array, 'r i']) -> Int[Array, 'r i w']:
    """Returns the orders of the members of groups of each row."""
    b, c, n = self.content.shape
    group = group.reshape(b, c, -1)
    index = indices(group)
    visible = jnp.broadcast_to(self.visible, self.content.shape)
    content = _take_groups(self.content, group)
    added: Any = 0.0
    for match in self.matches:
      ids = _take_shared_groups(match.ids, group)
      added += match.scores(ids, match.targets[..., None])
    content = content + added if self.matches else content
    if self.added is not None:
      content += _take_shared_groups(self.added, group)
    visible = _take_groups(visible, group) & (index < n)
    if self.bias is not None:
      start = n - 1 - self.newest[..., None]
      content += jnp.take(self.bias, start + index, mode='clip')
    return _orders(content, visible, index, n).reshape(b * c, -1, GROUP)

  def newest_of_rows(self) -> Int[Array, 'r 1']:
    """Returns the most recent behavior of each row."""
    shape = self.content.shape[:2]
    return jnp.broadcast_to(self.newest[..., 0], shape).reshape(-1, 1)

  def one_by_one(self) -> Rows:
    """Returns the same rows; the targets of one user as if each had its own."""
    if len(self.content) > 1:
      return self
    turned = lambda x: jnp.swapaxes(x, 0, 1)
    return dataclasses.replace(
      self,
      content=turned(self.content),
      visible=turned(self.visible),
      matches=tuple(
        match.replace(targets=turned(match.targets)) for match in self.matches
      ),
    )

  def of_users(self, take: Callable[[Any], Any]) -> Rows:
    """Returns the rows of the users that `take` takes out of an array."""
    own = lambda x: x if len(x) == 1 else take(x)
    return dataclasses.replace(
      self,
      content=take(self.content),
      visible=own(self.visible),
      newest=own(self.newest),
      matches=tuple(
        match.replace(ids=own(match.ids), targets=own(match.targets))
        for match in self.matches
      ),
      added=None if self.added is None else own(self.added),
    )

  def _sum(self, use: Callable[[Any, Any], Any]) -> Any:
    """Returns what `use` makes of the scores and of what is visible.

    A slice of the bias for each user is read one number at a time. Where all
    rings begin alike, in states just built or appended to together, one slice
    does for all.
    """
    n = self.length
    added: Any = 0.0
    for match in self.matches:
      added += match.scores(match.ids, match.targets)
    content = self.content + added if self.matches else self.content
    content = content if self.added is None else content + self.added
    if self.bias is None:
      return use(content, self.visible)
    start = n - 1 - self.newest[:, 0, 0]
    one = lambda i: jax.lax.dynamic_slice(self.bias, (i,), (n,))

    def alike() -> Any:
      return use(content + one(start[0])[None, None], self.visible)

    def each() -> Any:
      own = jax.lax.optimization_barrier(jax.vmap(one)(start))
      return use(content + own[:, None], self.visible)

    if start.shape[0] == 1:
      return alike()
    return jax.lax.cond(jnp.all(start == start[0]), alike, each)


def indices(group: Int[Array, '... i']) -> Int[Array, '... i w']:
  """Returns the indices of the members of groups."""
  member = jnp.arange(GROUP, dtype=jnp.int32)
  member = member.reshape(*(1,) * group.ndim, GROUP)
  return group[..., None] * GROUP + member


def age(
  index: Int[Array, '#r i'], newest: Int[Array, 'r 1'], n: shapes.Size
) -> Int[Array, 'r i']:
  """Returns how many behaviors came after those of some slots of a ring.

  Args:
    index: slots of the ring.
    newest: the slot of the most recent behavior, whose age is 0.
    n: number of slots.
  """
  return newest - index + jnp.where(index > newest, n, 0)


def _take_groups(x: Any, group: Int[Array, 'b c i']) -> Any:
  """Returns the members of groups [b, c, i, w]."""
  fill = -x.shape[-1] % GROUP
  x = jnp.pad(x, [(0, 0), (0, 0), (0, fill)]) if fill else x
  x = x.reshape(*x.shape[:2], -1, GROUP)
  return jnp.take_along_axis(x, group[..., None], axis=2, mode='clip')


def _take_shared_groups(x: Any, group: Int[Array, 'b c i']) -> Any:
  """Returns the members of groups [b, c, i, w] of what targets share."""
  b, c, i = group.shape
  x = jnp.broadcast_to(x, (b, 1, x.shape[-1]))
  return _take_groups(x, group.reshape(b, 1, -1)).reshape(b, c, i, -1)


def _orders(
  scores: Float[Array, ...],
  visible: Bool[Array, ...],
  index: Int[Array, ...],
  n: shapes.Size,
) -> Int[Array, ...]:
  """Returns the orders of behaviors at some indices of rows of n.

  Those that are not visible come last, and differ, and widely: telling equals
  apart, or neighbours, takes time.
  """
  apart = (ordering.NOTHING - ordering.LOWEST - 1) // (n + GROUP)
  unseen = ordering.NOTHING - 1 - index * apart
  return jnp.where(visible, ordering.order_of(scores), unseen)
