"""Kernels that search keys without writing their scores to memory."""

from dare_jax.search.kernels.dispatch import BACKENDS
from dare_jax.search.kernels.dispatch import find

__all__ = ['BACKENDS', 'find']
