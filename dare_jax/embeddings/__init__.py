"""Embedding tables, the plans that share them, and positions in time."""

from dare_jax.embeddings.content_vectors import GivenVectors
from dare_jax.embeddings.content_vectors import VectorFeature
from dare_jax.embeddings.encoder import FeatureEncoder
from dare_jax.embeddings.plans import Feature
from dare_jax.embeddings.plans import Plan
from dare_jax.embeddings.plans import PLANS
from dare_jax.embeddings.plans import ROLES
from dare_jax.embeddings.positions import ids_up_to
from dare_jax.embeddings.positions import num_position_ids
from dare_jax.embeddings.positions import position_ids
from dare_jax.embeddings.projections import KERNEL_INITS
from dare_jax.embeddings.projections import Projection
from dare_jax.embeddings.sets import SetFeature
from dare_jax.embeddings.sets import SetShape

__all__ = [
  'Feature',
  'FeatureEncoder',
  'GivenVectors',
  'KERNEL_INITS',
  'PLANS',
  'Plan',
  'Projection',
  'ROLES',
  'SetFeature',
  'SetShape',
  'VectorFeature',
  'ids_up_to',
  'num_position_ids',
  'position_ids',
]
