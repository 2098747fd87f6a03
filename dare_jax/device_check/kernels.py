"""The search over cached keys: kernel and plain operations, values and time.

Time is set against what the device itself has shown: the bytes of the keys at
the bandwidth of a copy, the products at the rate of a matrix product.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.device_check import clock
from dare_jax.device_check import machine
from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib
from dare_jax.serving import user_state
from dare_jax.serving.kernels import dispatch

# Users whose answers are compared with float64 scores on the host.
_COMPARED = 2
# Of a score, whose standard deviation is about 1. Where keys are narrow, they
# choose among, and float32 scores decide.
_BOUND = 1e-4
# Of the k best by float64, those that must be found.
_RECALL = {'float32': 0.999, 'bfloat16': 0.99, 'int8': 0.95}
_SECONDS = 12.0


def run(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  """Compares and times the searches of each precision."""
  platform = jax.devices()[0].platform
  backends = ['plain']
  if platform in dispatch.KERNELS:
    backends.insert(0, platform)
  else:
    report.skip('kernel', f'there is none for {platform}')
  shape = (sizes.users, sizes.behaviors, sizes.dim)
  keys = jax.random.normal(jax.random.key(0), shape)
  mask = jnp.ones(shape[:2], bool)
  for precision in user_state.PRECISIONS:
    state = user_state.build(keys, mask, precision)
    for candidates, backend in itertools.product(sizes.candidates, backends):
      case = f'{backend}, {precision} keys, {candidates} targets'
      if report.has_time(case, _SECONDS):
        with report.case(case):
          _measure(case, state, keys, candidates, backend, sizes.top_k, report)


def _measure(
  case: str,
  state: user_state.UserState,
  keys: Any,
  candidates: int,
  backend: str,
  top_k: int,
  report: reporting.Report,
) -> None:
  """Adds the rows of one search."""
  users, _, dim = keys.shape
  query = jax.random.normal(jax.random.key(1), (users, candidates, dim))
  bias = jax.random.normal(jax.random.key(2), (state.capacity + 1,))
  search = jax.jit(
    functools.partial(user_state.search, k=top_k, backend=backend)
  )
  found = search(state, query, bias)
  recall, apart = compare(found, keys, query, bias)
  report.add(case, 'recall', recall, passed=recall >= _RECALL[state.precision])
  report.add(case, 'largest_difference', apart, passed=apart <= _BOUND)
  taken = clock.seconds(search, state, query, bias)
  report.add(case, 'search_ms', 1e3 * taken)
  read = state.keys.nbytes / 1e9 / taken
  report.add(case, 'keys_gb_per_s', read)
  flops = 2e-12 * users * candidates * state.capacity * dim / taken
  report.add(case, 'products_tflop_per_s', flops)
  is_wide = state.precision == 'float32'
  for measure, value, of in (
    ('share_of_copy', read, machine.COPY),
    (
      'share_of_matrix_rate',
      flops,
      machine.WIDE if is_wide else machine.NARROW,
    ),
  ):
    if most := report.value(of):
      report.add(case, measure, value / most, note=f'of {of}')


def compare(
  found: Any, keys: Any, query: Any, bias: Any
) -> tuple[float, float]:
  """Returns the share of the best that is found, and how wrong scores are.

  By float64 scores of a few users.
  """
  own, asked, position = (
    np.asarray(x, np.float64)
    for x in (keys[:_COMPARED], query[:_COMPARED], bias)
  )
  length = own.shape[1]
  scores = np.einsum('bcd,bld->bcl', asked, own) * own.shape[-1] ** -0.5
  scores += position[np.arange(length, 0, -1)]
  index = length - np.asarray(found.distance[:_COMPARED, 0])
  told = np.asarray(found.scores[:_COMPARED, 0], np.float64)
  k = index.shape[-1]
  best = np.argpartition(-scores, k - 1, axis=-1)[..., :k]
  recall = np.mean(
    [
      len({*one} & {*other}) / k
      for one, other in zip(
        index.reshape(-1, k), best.reshape(-1, k), strict=True
      )
    ]
  )
  exact = np.take_along_axis(scores, index, axis=-1)
  return float(recall), float(np.max(np.abs(exact - told)))
