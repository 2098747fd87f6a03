"""Bundles: a trained model as a folder that JAX and NumPy alone can score with.

    from dare_jax import bundle

    served = bundle.open('BUNDLE')

Reading one imports neither Flax nor Polars. `bundle.making` makes one, and is
imported by its name.
"""

from dare_jax.bundle.reading import Bundle
from dare_jax.bundle.reading import open
from dare_jax.bundle.requests import Scores
from dare_jax.bundle.requests import State
from dare_jax.bundle.scoring import probabilities

__all__ = ['Bundle', 'Scores', 'State', 'open', 'probabilities']
