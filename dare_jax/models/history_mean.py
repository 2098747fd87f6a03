"""The mean of all that a user did, whatever the target.

A search finds what is like the target. Of a target unlike anything in the
history it finds little, and the mean still tells the user's taste.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

from dare_jax import layers
from dare_jax import types
from dare_jax.models import ranker_config


def of_moments(
  content: Float[Array, 'b l v'], visible: Bool[Array, 'b m l']
) -> Float[Array, 'b m v']:
  """Returns the mean vector of the behaviors that each moment sees.

  Zeros for a moment that sees none. Sums are float32 or wider.

  >>> content = jnp.array([[[2.0], [4.0], [9.0]]])
  >>> visible = jnp.array([[[True, True, False], [False, False, False]]])
  >>> of_moments(content, visible).tolist()
  [[[3.0], [0.0]]]

  Args:
    content: representation vectors of the behaviors, without time.
    visible: bool [b, m, l], the behaviors that each moment sees.
  """
  wide = layers.widen(content)
  seen = visible.astype(wide.dtype)
  count = jnp.sum(seen, axis=-1, keepdims=True)
  share = seen / jnp.maximum(count, 1)
  return jnp.einsum('bml,blv->bmv', share, wide).astype(content.dtype)


def added(
  result: types.SearchResult,
  batch: types.Batch,
  read: Callable[[types.History], Float[Array, 'b l v']],
  config: ranker_config.RankerConfig,
) -> types.SearchResult:
  """Returns a result with the mean of what each moment sees, if asked for.

  Args:
    result: what the search found.
    batch: histories and moments.
    read: gives the vectors of all behaviors, without time.
    config: says whether the heads see the mean.
  """
  if not config.history_mean:
    return result
  mean = of_moments(read(batch.history), batch.visible())
  return dataclasses.replace(result, mean=mean)


def features(
  result: types.SearchResult,
  target: Float[Array, 'b m c v'],
  config: ranker_config.RankerConfig,
) -> list[Float[Array, 'b m c v']]:
  """Returns what the heads see: mean | target * mean, or a part of it.

  Args:
    result: what the search found, with the mean of each moment.
    target: content vectors of the targets, without time.
    config: says which parts the heads see, if any.

  Raises:
    ValueError: the result has no mean.
  """
  if not config.history_mean:
    return []
  if result.mean is None:
    raise ValueError(
      'a model with history_mean scores a SearchResult with `mean`: from'
      ' `Ranker.search`, or `Ranker.encode_mean` where you keep histories.'
    )
  mean = result.mean[:, :, None].astype(target.dtype)
  mean = jnp.broadcast_to(mean, target.shape)
  if config.only_product:
    return [target * mean]
  return [mean, target * mean] if config.target_aware else [mean]
