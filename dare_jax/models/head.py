"""The prediction head: batch normalisation and a small network."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float


class Head(nn.Module):
  """BN, then Dense and PReLU for each width, then one logit.

  The published network (arXiv 2410.02604, appendix; 200 and 80 wide, PReLU
  with one slope a layer). Its two-way softmax equals a sigmoid of the outputs'
  difference, so one output does.

  Attributes:
    hidden: widths of the hidden layers.
  """

  hidden: tuple[int, ...]

  @nn.compact
  def __call__(
    self,
    features: Float[Array, '... f'],
    mask: Bool[Array, ...],
    train: bool,
  ) -> Float[Array, ...]:
    """Returns logits.

    Args:
      features: input vectors.
      mask: False rows stay out of the batch statistics.
      train: normalise by batch statistics and update the running ones.
    """
    norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
    x = norm(features, mask=mask[..., None] if train else None)
    for width in self.hidden:
      x = nn.PReLU(negative_slope_init=0.1)(nn.Dense(width)(x))
    return nn.Dense(1)(x)[..., 0]
