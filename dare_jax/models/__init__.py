"""Rankers: presets over plan, scorer, search and aggregation."""

from dare_jax.models.official.recipe import options as published_options
from dare_jax.models.official.weights import from_official_state_dict
from dare_jax.models.presets import build
from dare_jax.models.presets import PRESETS
from dare_jax.models.ranker import Ranker
from dare_jax.models.ranker_config import RankerConfig

__all__ = [
  'PRESETS',
  'Ranker',
  'RankerConfig',
  'build',
  'from_official_state_dict',
  'published_options',
]
