"""Chooses a kernel or plain operations for a search over cached keys."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.serving.kernels import gpu
from dare_jax.serving.kernels import operands as operands_lib
from dare_jax.serving.kernels import tpu

KERNELS = {'tpu': tpu.search, 'gpu': gpu.search}
# As `jax.lax.platform_dependent` calls the platforms.
_PLATFORMS = {'tpu': 'tpu', 'gpu': 'cuda'}
BACKENDS = ('plain', *KERNELS)


def choose(
  backend: str | None,
  plain: Callable[..., Any],
  by_kernel: Callable[..., Any],
  operands: Any,
) -> Any:
  """Returns what the search of a backend makes of operands.

  Args:
    backend: one of `BACKENDS`. None: the kernel on TPU, plain elsewhere. A
      kernel that is asked for on another platform than its own is run there as
      plain operations, which is slow: it is for tests.
    plain: the search by plain operations, a function of the operands.
    by_kernel: the search by a kernel, a function of the kernel and the
      operands.
    operands: the arguments of the search, pytrees of arrays.
  """
  if backend == 'plain':
    return plain(*operands)
  if backend is None:
    own = functools.partial(by_kernel, tpu.search)
    return jax.lax.platform_dependent(*operands, tpu=own, default=plain)
  kernel = KERNELS[backend]
  interpreted = functools.partial(kernel, interpret=True)
  return jax.lax.platform_dependent(
    *operands,
    **{_PLATFORMS[backend]: functools.partial(by_kernel, kernel)},
    default=functools.partial(by_kernel, interpreted),
  )


def best(
  kernel: Callable[..., Any],
  query: Float[Array, 'b c d'],
  keys: Any,
  scale: Float[Array, 'b l'] | None,
  bias: Float[Array, 'b l'],
  newest: Int[Array, ' b'],
  k: int,
) -> tuple[Int[Array, 'b c k'], Float[Array, 'b c k']]:
  """Returns slots and scores of the k best behaviors of each target.

  Best by <q, k_i> * scale_i + bias_i. Products and sums are in float32; of
  narrower keys the query is rounded to bfloat16, one pass of the matrix unit.
  Equal scores go to the most recent. A NaN score counts as +inf, so that a
  diverged model shows in its output. No gradient flows.

  Args:
    kernel: one of `KERNELS`.
    query: attention vectors of the targets, times 1 / sqrt(d), float32.
    keys: keys of the behaviors, [b, d, l], in a precision of `products.narrow`.
    scale: float32 [b, l], what the products with int8 keys are multiplied by;
      None for other precisions.
    bias: float32 [b, l], added to the score of each slot; a slot with -inf is
      never kept.
    newest: slot of each user's most recent behavior.
    k: behaviors to keep, at most l.

  Returns:
    Where fewer than k are visible, the score is -inf and the slot any.
  """
  operands = jax.lax.stop_gradient((query, keys, scale, bias))
  query, keys, scale, bias = operands
  queries = [query]
  if keys.dtype == jnp.uint32:
    # Two bfloat16 in a word: a query for each half.
    query = jnp.pad(query, [(0, 0), (0, 0), (0, query.shape[-1] % 2)])
    queries = [query[..., 0::2], query[..., 1::2]]
    keys = jax.lax.bitcast_convert_type(keys, jnp.int32)
  if keys.dtype != jnp.float32:
    queries = [own.astype(jnp.bfloat16) for own in queries]
  oldest = (newest + 1) % keys.shape[-1]
  return kernel(operands_lib.Operands(queries, keys, scale, bias, oldest), k)
