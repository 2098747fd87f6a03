"""Scores where one map takes content and time together.

A mapped vector is then the sum of a content and a time vector, each of the
whole width. The score of target q at time t_0 and behavior k at time t is

  <q + t_0, k + t> = <q, k> + <t_0, k> + <q + t_0, t>:

of content alone, of each behavior, and of each position for each target. So
queries and keys stay content, of one kind: codes of their signs compare them.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from dare_jax import layers


def scale(content_dim: int, time_dim: int, dtype: str) -> Float[Array, ' d']:
  """Returns what queries and keys are multiplied by.

  The dimensions in the place of content, and of time, keep the scale of their
  own number in a score: sum_d q_d k_d / sqrt(n_d), n_d being that of d's part.
  Half of the factor is on either side, so that equals stay equal. Scores
  divide by the root of the whole width.

  Args:
    content_dim: dimensions in the place of content; they come first.
    time_dim: dimensions in the place of time; they come last.
    dtype: dtype of the result, one of `layers.COMPUTE_DTYPES`.
  """
  parts = np.repeat([content_dim, time_dim], [content_dim, time_dim])
  factor = ((content_dim + time_dim) / parts) ** 0.25
  return layers.narrow(jnp.asarray(factor, jnp.result_type(float)), dtype)


def position_scores(
  query: Float[Array, 'b m c d'],
  origin: Float[Array, ' d'],
  rows: Float[Array, 'p d'],
  factor: Float[Array, ' d'],
) -> Float[Array, 'b m c p']:
  """Returns <q + t_0, t> of each target and position.

  Args:
    query: content vectors of the targets, times the factor.
    origin: the target's time vector.
    rows: time vectors of the positions.
    factor: float32 [d], from `scale`.
  """
  query = query + jnp.expand_dims(origin * factor, (0, 1, 2))
  rows = rows * (factor * rows.shape[-1] ** -0.5)[None]
  return jnp.einsum('bmcd,pd->bmcp', query, rows)


def behavior_scores(
  keys: Float[Array, 'b l d'],
  origin: Float[Array, ' d'],
  factor: Float[Array, ' d'],
) -> Float[Array, 'b l']:
  """Returns <t_0, k> of each behavior.

  Args:
    keys: content vectors of the behaviors, times the factor.
    origin: the target's time vector.
    factor: float32 [d], from `scale`.
  """
  return keys @ (origin * factor * keys.shape[-1] ** -0.5)
