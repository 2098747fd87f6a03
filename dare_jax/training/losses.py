"""Losses: values of single targets, and the training loss that weighs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from dare_jax import types
from dare_jax.training import log_window
from dare_jax.training import options as train_options


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


def candidate_cross_entropy(
  logits: Float[Array, 'b m c'],
  targets: types.Targets,
) -> tuple[Float[Array, 'b m c'], Float[Array, 'b m c']]:
  """Returns -log softmax of each positive, and the weight of each value.

  A positive with logit s stands against the negatives n of its moment, not
  against its other positives: log(1 + sum_n exp(s_n - log_ratio_n - s)).

  Args:
    logits: logits of the candidates, float [b, m, c].
    targets: their labels and weights. Candidates of `targets.contrast` are
      negatives too, with their `log_ratio`.

  Returns:
    Values, float32 or wider, and weights: those of the targets for positives
    that have a negative beside them; 0 elsewhere.
  """
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  negative = (targets.weight > 0) & (targets.label < 0.5)
  against = logits
  if targets.contrast is not None:
    negative |= targets.contrast.mask
    against = logits - targets.contrast.log_ratio
  some = jnp.any(negative, axis=-1, keepdims=True)
  # Where there is none any value will do, but its gradient must be a number.
  total = jax.nn.logsumexp(
    against, axis=-1, keepdims=True, where=negative | ~some
  )
  values = jax.nn.softplus(total - logits)
  counted = (targets.label > 0.5) & some
  return values, jnp.where(counted, targets.weight, 0.0)


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
    norms: whether the scales of batch normalisation and the slopes of PReLU are
      penalised, too, as published.
  """
  counted = {'kernel'} | ({'scale', 'negative_slope'} if norms else set())
  squares = [
    jnp.sum(jnp.square(value))
    for path, value in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key in counted
  ]
  return sum(squares, jnp.zeros(()))


def of_batch(
  output: types.RankerOutput,
  params: Mapping[str, Any],
  targets: types.Targets,
  options: train_options.Options,
  axis_name: str,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Returns the training loss of a batch, and its sums for the log window.

  The loss is the weighted sum of four: pointwise, among the candidates of a
  moment, of the auxiliary head, and of the squares of kernels.

  Args:
    output: what the model returned for this device's part of the batch.
    params: the model's parameters, without tables, float32.
    targets: the targets of that part.
    options: the weights of the losses.
    axis_name: the mesh axis of the devices that share the batch, over which
      means and sums are taken.

  Returns:
    The loss; name -> sum, of all in `log_window.SUM_NAMES`.
  """
  label, weight = targets.label, targets.weight

  def pointwise(logits: Float[Array, 'b m c']) -> Float[Array, '']:
    """Returns the mean cross entropy of a head's logits."""
    entropy = binary_cross_entropy(logits, label, options.loss_epsilon)
    return weighted_mean(entropy, weight, axis_name)

  main, aux = pointwise(output.logits), jnp.zeros(())
  if output.aux_logits is not None:
    aux = pointwise(output.aux_logits)
  loss = options.pointwise_weight * main
  if options.softmax_weight > 0:
    values, counted = candidate_cross_entropy(output.logits, targets)
    among = weighted_mean(values, counted, axis_name)
    loss += options.softmax_weight * among
  loss += options.aux_weight * aux
  loss += options.l2 * l2_penalty(params, options.l2_on_norms)
  sums = log_window.of_targets(output.logits, targets, axis_name)
  sums |= {
    'steps': jnp.ones(()),
    'loss': loss,
    'logloss': main * sums['weight'],
    'aux_logloss': aux * sums['weight'],
  }
  return loss, sums
