"""Losses: per-target values; shared code weights and averages them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float


def binary_cross_entropy(
  logits: Float[Array, '*shape'],
  labels: Float[Array, '*shape'],
  epsilon: float = 0.0,
) -> Float[Array, '*shape']:
  """Returns -log(P(label) + epsilon), float32 or wider.

  The published code adds 1e-8 to the probability; with epsilon 0 the value is
  computed from the logit and never overflows.

  >>> import jax.numpy as jnp
  >>> loss = binary_cross_entropy(jnp.array([0.0, 100.0]), jnp.ones(2))
  >>> [round(float(value), 4) for value in loss]
  [0.6931, 0.0]
  """
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  signed = jnp.where(labels > 0.5, logits, -logits)
  if epsilon:
    return -jnp.log(jax.nn.sigmoid(signed) + epsilon)
  return -jax.nn.log_sigmoid(signed)


def weighted_mean(
  values: Float[Array, '*shape'],
  weights: Float[Array, '*shape'],
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Returns sum(w v) / sum(w); 0 where all weights are 0.

  Args:
    values: one number of each target, of any shape.
    weights: weight of each target, of the shape of `values`; 0 for padding.
    axis_name: the mesh axis over which the sums are taken, inside
      `jax.shard_map`; None: over this device alone.
  """
  sums = jnp.sum(values * weights), jnp.sum(weights)
  if axis_name is not None:
    sums = jax.lax.psum(sums, axis_name)
  return sums[0] / jnp.where(sums[1] > 0, sums[1], 1.0)


def l2_penalty(
  params: Mapping[str, Any], norms: bool = False
) -> Float[Array, '']:
  """Returns the sum of squares of all kernels.

  Args:
    params: a model's parameters, without tables.
    norms: as published: the scales of batch normalisation and the slopes of
      PReLU, too.
  """
  counted = {'kernel'} | ({'scale', 'negative_slope'} if norms else set())
  squares = [
    jnp.sum(jnp.square(value))
    for path, value in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key in counted
  ]
  return sum(squares, jnp.zeros(()))
