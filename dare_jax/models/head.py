"""The prediction head: batch normalisation and a small network."""

from __future__ import annotations

from collections.abc import Mapping

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

from dare_jax import layers
from dare_jax.models import ranker_config


class Head(nn.Module):
  """BN, then Dense and PReLU for each width, then one logit.

  The published network (arXiv 2410.02604, appendix; 200 and 80 wide, PReLU
  with one slope a layer). Its two-way softmax equals a sigmoid of the outputs'
  difference, so one output does; Adam and l2 tell the two apart.

  Attributes:
    hidden: widths of the hidden layers.
    two_outputs: whether there are two outputs, click and no click, as
      published; the logit is click minus no click.
    batch_statistics: whether evaluation normalises by the statistics of its
      batch, too, as published.
    axis_name: the mesh axis over which statistics are of one batch; None: of
      this device alone.
    norm_momentum: share of the running statistics that a step keeps; None: by
      the rows seen.
  """

  hidden: tuple[int, ...]
  two_outputs: bool = False
  batch_statistics: bool = False
  axis_name: str | None = None
  norm_momentum: float | None = None

  @nn.compact
  def __call__(
    self,
    features: Float[Array, '... f'],
    mask: Bool[Array, ...],
    train: bool,
  ) -> Float[Array, ...]:
    """Returns logits, float32 or wider.

    Args:
      features: float [..., f], the input vectors.
      mask: False rows stay out of the batch statistics.
      train: normalise by batch statistics and update the running ones.
    """
    of_batch = train or self.batch_statistics
    norm = layers.BatchNorm(
      not of_batch, self.axis_name, train, self.norm_momentum
    )
    x = norm(features, mask)
    for width in self.hidden:
      x = nn.PReLU(negative_slope_init=0.1)(nn.Dense(width)(x))
    if self.two_outputs:
      outputs = layers.widen(nn.Dense(2)(x))
      return outputs[..., 0] - outputs[..., 1]
    return layers.widen(nn.Dense(1)(x)[..., 0])


def of_config(
  config: ranker_config.RankerConfig, hidden: tuple[int, ...]
) -> Head:
  """Returns a ranker's head, some layers wide."""
  return Head(
    hidden=hidden,
    two_outputs=config.two_outputs,
    batch_statistics=config.batch_statistics,
    axis_name=config.axis_name,
    norm_momentum=config.norm_momentum,
  )


def features(
  target: Float[Array, 'b m c v'],
  interest: Float[Array, 'b m c v'],
  context: Mapping[str, Float[Array, 'b m e']],
  config: ranker_config.RankerConfig,
) -> Float[Array, 'b m c f']:
  """Returns target | interest | target * interest | context, or a part of it.

  Args:
    target: representation vectors of the targets, time included.
    interest: the interest of the users, [b, m, c, v].
    context: field -> vectors of the moments.
    config: says which parts the heads see.
  """
  product = target * interest
  if config.only_product:
    parts = [product]
  else:
    parts = [target, interest]
    parts += [product] if config.target_aware else []
  for vector in context.values():
    vector = vector[:, :, None, :]
    parts.append(
      jnp.broadcast_to(vector, (*target.shape[:-1], vector.shape[-1]))
    )
  return jnp.concatenate(parts, axis=-1)
