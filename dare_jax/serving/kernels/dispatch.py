"""One exact search over cached keys, by the best means of the platform."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.serving.kernels import gpu
from dare_jax.serving.kernels import lanes
from dare_jax.serving.kernels import tpu
from dare_jax.topk import selection


def find(
  queries: Float[Array, 'b c d'],
  keys: Float[Array, 'b l d'] | Int[Array, 'b l d'],
  bias: Float[Array, ' l'] | Float[Array, 'b l'],
  visible: Bool[Array, 'b l'],
  k: int,
  scale: Float[Array, 'b l'] | None = None,
  backend: str | None = None,
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k'], Bool[Array, 'b c k']]:
  """Returns the k best visible behaviors of each target, best first.

  Best by <q, k_i> * scale_i + bias_i (arXiv 2410.02604, equation 3, with the
  query scaled already and the time term as the bias of a position). Exact:
  products and sums are in float32, of bfloat16 operands alone in one pass of
  the matrix unit. Equal scores go to the most recent (the highest index). A
  NaN score counts as +inf, so that a diverged model shows in its output. No
  gradient flows, neither through the choice nor through the scores: score the
  rows found again where one is needed.

  On TPU a Pallas kernel keeps the scores on the chip. Elsewhere, and on GPU
  unless its kernel is asked for, they are written to memory and chosen from by
  `selection.top_k`.

  Args:
    queries: attention vectors of the targets, times 1 / sqrt(d); float32 or
      bfloat16.
    keys: of the behaviors, oldest first: float32, bfloat16, or int8 with a
      `scale`.
    bias: of each position, alike in all histories or for each.
    visible: False is never kept.
    k: behaviors to keep, at most l.
    scale: what a key's products are multiplied by; None is 1.
    backend: one of `BACKENDS`; None is the platform's.

  Returns:
    Indices int32, scores float32, and a mask that is False where fewer than k
    were visible: the score is -inf there and the index any in range.

  Raises:
    ValueError: k is below 1 or above l, or an unknown backend.

  >>> import jax.numpy as jnp
  >>> index, score, mask = find(
  ...     jnp.ones((1, 1, 2)), jnp.array([[[1., 2.], [3., 0.], [9., 9.]]]),
  ...     jnp.zeros(3), jnp.array([[True, True, False]]), k=2)
  >>> index.tolist(), score.tolist(), mask.tolist()
  ([[[1, 0]]], [[[3.0, 3.0]]], [[[True, True]]])
  """
  length = keys.shape[1]
  if not 1 <= k <= length:
    raise ValueError(
      f'top_k={k}: expected 1 to the history length, {length}; lower'
      ' model.top_k, raise data.history_length, or pad the histories.'
    )
  if backend is not None and backend not in BACKENDS:
    raise ValueError(
      f'backend={backend!r}: expected one of {", ".join(BACKENDS)}, or None.'
    )
  bias = jnp.where(visible, bias.astype(jnp.float32), -jnp.inf)
  operands = jax.lax.stop_gradient((queries, keys, bias, scale))

  by_backend = {
    name: functools.partial(search, k=k) for name, search in BACKENDS.items()
  }
  if backend is None:
    index, score = jax.lax.platform_dependent(
      *operands, tpu=by_backend['tpu'], default=by_backend['plain']
    )
  else:
    index, score = by_backend[backend](*operands)
  return index, score, score > -jnp.inf


def _plain(
  queries: Any, keys: Any, bias: Any, scale: Any, k: int
) -> tuple[Any, Any]:
  """Returns indices and scores of the best, by operations of JAX alone."""
  if not queries.dtype == keys.dtype == jnp.bfloat16:
    queries, keys = queries.astype(jnp.float32), keys.astype(jnp.float32)
  scores = jnp.einsum(
    'bcd,bld->bcl',
    queries,
    keys,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
  if scale is not None:
    scores *= scale[:, None, :]
  bias = bias[:, None, :]
  scores = lanes.rank(scores, bias)
  index, _ = selection.top_k(scores, bias > -jnp.inf, k)
  return index, jnp.take_along_axis(scores, index, axis=-1)


BACKENDS = {'plain': _plain, 'tpu': tpu.search, 'gpu': gpu.search}
