"""Kernels that search keys without writing their scores to memory."""

from dare_jax.serving.kernels.dispatch import BACKENDS
from dare_jax.serving.kernels.dispatch import find

__all__ = ['BACKENDS', 'find']
