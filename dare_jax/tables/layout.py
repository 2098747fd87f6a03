"""Where the rows of a large table lie, whatever the number of devices.

A device owns a contiguous block of positions. Ids are numbered by first
appearance, so low ids are the popular ones, and every batch asks for them:
stored in order, the first device would answer nearly all. Rows are dealt out
to a fixed number of parts instead, neighbours far apart, and each device owns
whole parts. The order is the same on every mesh, so that a checkpoint fits any.
"""

from __future__ import annotations

import numpy as np

from dare_jax import types
from dare_jax.parallel import mesh

PARTS = mesh.PARTS
# Near the golden section of PARTS, which spreads neighbours evenly over any
# number of blocks; and without a common factor, so that no two rows collide.
_STRIDE = 9_493
_INVERSE = pow(_STRIDE, -1, PARTS)


def padded(num_rows: int) -> int:
  """Returns the rows of a table in storage: whole parts.

  >>> padded(20_000)
  30720
  """
  return -(-num_rows // PARTS) * PARTS


def position(row: types.Array, num_rows: int | np.integer) -> types.Array:
  """Returns where rows lie; row 0, padding, at 0.

  >>> [position(row, 30_720) for row in (0, 1, 2, PARTS)]
  [0, 18986, 7252, 1]

  Args:
    row: integers of any shape, NumPy or JAX, below `num_rows`.
    num_rows: number of rows of the table in storage.
  """
  part = row % PARTS * _STRIDE % PARTS
  return part * (num_rows // PARTS) + row // PARTS


def row_at(place: types.Array, num_rows: int | np.integer) -> types.Array:
  """Returns the row at a position: the inverse of `position`.

  >>> row_at(position(12_345, 30_720), 30_720)
  12345
  """
  height = num_rows // PARTS
  return place % height * PARTS + place // height * _INVERSE % PARTS
