"""An affine map whose parts can be used apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float


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
