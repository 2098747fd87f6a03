"""dare_jax: lifelong-sequence recommendation in JAX and Flax.

    from dare_jax import models, search, embeddings

Importing this package touches no device. `BUILD.md` holds the map of the code.
"""

__version__ = '0.1.0'
