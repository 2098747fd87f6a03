"""Aggregation: from the behaviors kept to one vector of user interest."""

from dare_jax.aggregate.buckets import BucketPooling
from dare_jax.aggregate.buckets import signatures
from dare_jax.aggregate.pooling import AggregationOptions
from dare_jax.aggregate.pooling import masked_softmax
from dare_jax.aggregate.pooling import SoftmaxPooling
from dare_jax.aggregate.values import AtDistance
from dare_jax.aggregate.values import CountedBack
from dare_jax.aggregate.values import Values

AGGREGATIONS = {'softmax': SoftmaxPooling, 'buckets': BucketPooling}

__all__ = [
  'AGGREGATIONS',
  'AggregationOptions',
  'AtDistance',
  'BucketPooling',
  'CountedBack',
  'SoftmaxPooling',
  'Values',
  'masked_softmax',
  'signatures',
]
