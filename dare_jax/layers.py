"""Layers that Linen has in another form."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

COMPUTE_DTYPES = ('float32', 'bfloat16')
# Running statistics are of this share of the rows so far, up to so many: those
# of ten default steps. Beyond `ENOUGH` rows nothing is counted.
RECENT, HORIZON = 0.1, 20_490
ENOUGH = HORIZON / RECENT


def narrow(values: Any, dtype: str) -> Any:
  """Returns a tree of floats in a dtype of `COMPUTE_DTYPES`, or as it is.

  Args:
    values: float32 or wider.
    dtype: float32 leaves them alone: wider ones stay wider.

  >>> narrow(jnp.ones(1), 'bfloat16').dtype.name
  'bfloat16'
  """
  if dtype == 'float32':
    return values
  return jax.tree.map(lambda x: x.astype(dtype), values)


def widen(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
  """Returns values that may be narrower than float32, or wider, as such."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _bits(dtype: Any) -> int:
  return jnp.finfo(dtype).bits


class Affine(nn.Module):
  """Holds `kernel [in_dim, out_dim]` and `bias [out_dim]` of x W + b.

  For maps of concatenated inputs: each input meets its rows of the kernel, and
  parts that repeat are multiplied once.

  Attributes:
    in_dim: width of the whole input.
    out_dim: width of the output.
    kernel_init: makes the initial kernel [in_dim, out_dim] from a random key,
      its shape and its dtype.
  """

  in_dim: int
  out_dim: int
  kernel_init: Callable[..., Any] = nn.initializers.lecun_normal()

  def setup(self) -> None:
    self.kernel = self.param(
      'kernel', self.kernel_init, (self.in_dim, self.out_dim)
    )
    self.bias = self.param('bias', nn.initializers.zeros, (self.out_dim,))

  def __call__(self, x: Float[Array, '... i']) -> Float[Array, '... o']:
    bias = jnp.expand_dims(self.bias, tuple(range(x.ndim - 1)))
    return x @ self.kernel + bias


class BatchNorm(nn.Module):
  """Batch normalisation over real rows only, on any number of devices.

  Linen's own averages the devices' means, whatever their number of real rows.
  Rows are measured from a real one of them: so variances far from 0 are exact,
  and what all rows share is 0 in every bit, whatever the order of sums. So is
  then the gradient of its scale; a remnant of rounding there would have Adam
  move it by whole steps in random directions.

  Running statistics are those of a tenth of the rows so far, the last ones, of
  `HORIZON` rows at most: a batch of n rows has the weight n / (these rows), at
  most 1. So they follow the weights, which change most at first, and neither
  initial values nor how many rows a step has count in them. See
  docs/training.md for what that is worth.

  Parameters and statistics have Linen's names, `scale`, `bias`; `mean`, `var`;
  and `count`, the rows so far, at most `ENOUGH`.

  Attributes:
    use_running_average: whether to normalise by the running statistics, which
      are then not moved.
    axis_name: mesh axis of the devices that share a batch, inside
      `jax.shard_map`.
    updates: whether the running statistics move; False in evaluation.
    momentum: share of the running statistics that a step keeps, whatever its
      rows, from 0 and 1 on, as published; there is no `count` then. None: as
      above.
    epsilon: added to the variance.
  """

  use_running_average: bool
  axis_name: str | None = None
  updates: bool = True
  momentum: float | None = None
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self, x: Float[Array, '... f'], mask: Bool[Array, ...]
  ) -> Float[Array, '... f']:
    """Returns the normalised rows, in the dtype of the parameters.

    Args:
      x: float [..., f], the rows; their statistics are float32 or wider.
      mask: bool [...], which rows are real. With batch statistics the values of
        the others are not read; they come out as if they were the mean.
    """
    x = widen(x)
    width = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, width)
    bias = self.param('bias', nn.initializers.zeros, width)
    make = {'mean': jnp.zeros, 'var': jnp.ones}
    running = {
      name: self.variable('batch_stats', name, fill, width)
      for name, fill in make.items()
    }
    moves = self.updates and not self.use_running_average
    if self.momentum is None and (moves or self.is_initializing()):
      running['count'] = self.variable('batch_stats', 'count', jnp.zeros, ())
    expand = tuple(range(x.ndim - 1))
    if self.use_running_average:
      mean, var = (running[name].value for name in make)
      x -= jnp.expand_dims(mean, expand)
    else:
      real = mask[..., None]
      origin = self._origin(x, mask)
      x = jnp.where(real, x - jnp.expand_dims(origin, expand), 0.0)
      mean, var, count = self._statistics(x, mask)
      if moves and not self.is_initializing():
        old = {name: variable.value for name, variable in running.items()}
        for name, value in self._moved(old, origin + mean, var, count).items():
          running[name].value = value
      x = jnp.where(real, x - jnp.expand_dims(mean, expand), 0.0)
    factor = jnp.expand_dims(scale * jax.lax.rsqrt(var + self.epsilon), expand)
    normal = x * factor + jnp.expand_dims(bias, expand)
    return normal.astype(min(scale.dtype, normal.dtype, key=_bits))

  def _statistics(
    self, x: Float[Array, '... f'], mask: Bool[Array, ...]
  ) -> tuple[Float[Array, ' f'], Float[Array, ' f'], Float[Array, '']]:
    """Returns mean, variance and number of real rows; the others are 0."""
    axes = tuple(range(x.ndim - 1))
    total, squares = jnp.sum(x, axes), jnp.sum(x * x, axes)
    count = jnp.sum(mask).astype(x.dtype)
    if self.axis_name is not None:
      total, squares, count = jax.lax.psum(
        (total, squares, count), self.axis_name
      )
    mean = total / jnp.maximum(count, 1.0)
    var = squares / jnp.maximum(count, 1.0) - mean * mean
    return mean, jnp.maximum(var, 0.0), count

  def _moved(
    self, old: Mapping[str, Any], mean: Any, var: Any, count: Any
  ) -> dict[str, Any]:
    """Returns running statistics after a batch; without rows, the old ones."""
    if self.momentum is not None:
      weight = jnp.where(count > 0, 1 - self.momentum, 0.0)
      between = jnp.zeros_like(mean)
      new = {}
    else:
      total = jnp.minimum(old['count'] + count, ENOUGH)
      weight = jnp.minimum(count / jnp.maximum(RECENT * total, 1.0), 1.0)
      # The means of small batches lie apart: that is part of the variance.
      between = weight * (1 - weight) * jnp.square(mean - old['mean'])
      new = {'count': total}
    mix = lambda name, value: old[name] + weight * (value - old[name])
    return {**new, 'mean': mix('mean', mean), 'var': mix('var', var) + between}

  def _origin(
    self, x: Float[Array, '... f'], mask: Bool[Array, ...]
  ) -> Float[Array, ' f']:
    """Returns the first real row of all, without gradient; 0 without one."""
    place = jnp.argmax(mask)
    row = jax.lax.stop_gradient(x.reshape(-1, x.shape[-1])[place])
    is_here = jnp.any(mask)
    if self.axis_name is not None:
      index = jax.lax.axis_index(self.axis_name)
      never = jnp.iinfo(index.dtype).max
      first = jax.lax.pmin(jnp.where(is_here, index, never), self.axis_name)
      is_here &= index == first
    row = jnp.where(is_here, row, 0.0)
    if self.axis_name is None:
      return row
    return jax.lax.psum(row, self.axis_name)
