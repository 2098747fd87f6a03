"""Aggregation: from the behaviors kept to one vector of user interest."""

from dare_jax.aggregate.pooling import masked_softmax
from dare_jax.aggregate.pooling import SoftmaxPooling
from dare_jax.aggregate.pooling import weighted_sum

AGGREGATIONS = {'softmax': SoftmaxPooling}

__all__ = ['AGGREGATIONS', 'SoftmaxPooling', 'masked_softmax', 'weighted_sum']
