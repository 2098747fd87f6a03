"""Tables of whole numbers with a scale for each row, for serving."""

from __future__ import annotations

from typing import Any

from flax import struct
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int


@struct.dataclass
class ScaledRows:
  """A table in the place of an array of floats.

  Attributes:
    whole: int8 [rows, width].
    scale: float32 [rows], what a row's numbers are to be multiplied by.
  """

  whole: Any
  scale: Any

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(self.whole.shape)


def take(table: Any, ids: Int[Array, ...]) -> Float[Array, '... d']:
  """Returns rows of a table, those of a larger id the last one.

  Args:
    table: an array [rows, width], or `ScaledRows`.
    ids: integer ids, of any shape.
  """
  if not isinstance(table, ScaledRows):
    return jnp.take(table, ids, axis=0, mode='clip')
  whole = jnp.take(table.whole, ids, axis=0, mode='clip')
  scale = jnp.take(table.scale, ids, axis=0, mode='clip')
  return whole.astype(scale.dtype) * scale[..., None]
