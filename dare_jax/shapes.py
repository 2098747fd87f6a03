"""Shapes that are not numbers: those of a program for any size."""

from __future__ import annotations

from typing import Any

from jax import export

# A number, or a symbol of `jax.export`.
Size = Any


def are_known(*sizes: Size) -> bool:
  """Returns whether sizes are numbers, none a symbol of `jax.export`.

  What is faster for some sizes can be chosen where it holds only.
  """
  return not any(export.is_symbolic_dim(size) for size in sizes)
