"""Layers that Linen has in another form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

COMPUTE_DTYPES = ('float32', 'bfloat16')


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
    kernel_init: as in `nn.Dense`.
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
  Rows are measured from one of them: so variances far from 0 are exact, and
  what all rows share is 0 in every bit, whatever the order of sums. So is then
  the gradient of its scale; a remnant of rounding there would have Adam move
  it by whole steps in random directions.

  Parameters and statistics have Linen's names: `scale`, `bias`; `mean`, `var`.

  Attributes:
    use_running_average: normalise by the running statistics, and leave them.
    axis_name: of the devices that share a batch, inside `jax.shard_map`.
    updates: move the running statistics; False leaves them, as in evaluation.
    momentum: of the running statistics.
    epsilon: added to the variance.
  """

  use_running_average: bool
  axis_name: str | None = None
  updates: bool = True
  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self, x: Float[Array, '... f'], mask: Bool[Array, ...]
  ) -> Float[Array, '... f']:
    """Returns the normalised rows, in the dtype of the parameters.

    Args:
      x: rows; their statistics are float32 or wider.
      mask: which of them are real: only these count in the statistics.
    """
    x = widen(x)
    width = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, width)
    bias = self.param('bias', nn.initializers.zeros, width)
    running = {
      name: self.variable('batch_stats', name, make, width)
      for name, make in (('mean', jnp.zeros), ('var', jnp.ones))
    }
    expand = tuple(range(x.ndim - 1))
    if self.use_running_average:
      mean, var = (running[name].value for name in ('mean', 'var'))
    else:
      origin = self._origin(x)
      x -= jnp.expand_dims(origin, expand)
      mean, var = self._statistics(x, mask)
      if self.updates and not self.is_initializing():
        for name, value in (('mean', origin + mean), ('var', var)):
          old = running[name].value
          running[name].value = (
            self.momentum * old + (1 - self.momentum) * value
          )
    mean, bias = jnp.expand_dims(mean, expand), jnp.expand_dims(bias, expand)
    factor = jnp.expand_dims(scale * jax.lax.rsqrt(var + self.epsilon), expand)
    normal = (x - mean) * factor + bias
    return normal.astype(min(scale.dtype, normal.dtype, key=_bits))

  def _statistics(
    self, x: Float[Array, '... f'], mask: Bool[Array, ...]
  ) -> tuple[Float[Array, ' f'], Float[Array, ' f']]:
    axes = tuple(range(x.ndim - 1))
    total, squares = (
      jnp.sum(values, axes, where=mask[..., None]) for values in (x, x * x)
    )
    count = jnp.sum(mask).astype(x.dtype)
    if self.axis_name is not None:
      total, squares, count = jax.lax.psum(
        (total, squares, count), self.axis_name
      )
    count = jnp.maximum(count, 1.0)
    mean = total / count
    return mean, jnp.maximum(squares / count - mean * mean, 0.0)

  def _origin(self, x: Float[Array, '... f']) -> Float[Array, ' f']:
    """Returns the first row of the first device, without gradient."""
    row = jax.lax.stop_gradient(x.reshape(-1, x.shape[-1])[0])
    if self.axis_name is None:
      return row
    first = jax.lax.axis_index(self.axis_name) == 0
    return jax.lax.psum(jnp.where(first, row, 0.0), self.axis_name)
