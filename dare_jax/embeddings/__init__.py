"""Embedding tables, the plans that share them, and positions in time."""

from dare_jax.embeddings.encoder import FeatureEncoder
from dare_jax.embeddings.positions import num_position_ids
from dare_jax.embeddings.positions import position_ids
from dare_jax.embeddings.tables import Feature
from dare_jax.embeddings.tables import Plan
from dare_jax.embeddings.tables import PLANS

__all__ = [
  'Feature',
  'FeatureEncoder',
  'PLANS',
  'Plan',
  'num_position_ids',
  'position_ids',
]
