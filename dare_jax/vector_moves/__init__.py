"""Gathers and scatters within rows, as is fast on each platform."""

from dare_jax.vector_moves.moves import at_distance
from dare_jax.vector_moves.moves import counted_back
from dare_jax.vector_moves.moves import moved_right
from dare_jax.vector_moves.moves import put
from dare_jax.vector_moves.moves import taken

__all__ = ['at_distance', 'counted_back', 'moved_right', 'put', 'taken']
