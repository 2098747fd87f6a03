"""How long calls take on a device."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

import jax
import numpy as np

_ROUNDS = 5
_ROUND_SECONDS = 0.1
_MOST = 200


def seconds(call: Callable[..., Any], *args: Any) -> float:
  """Returns the time of a call among others that wait for the device.

  Calls are queued, as many as take a tenth of a second, so that starting them
  from Python is not what is measured. The median of five rounds, after calls
  that compile and warm up.
  """
  jax.block_until_ready(call(*args))
  begin = time.perf_counter()
  jax.block_until_ready(call(*args))
  once = time.perf_counter() - begin
  number = int(np.clip(_ROUND_SECONDS / once, 1, _MOST))
  taken = []
  for _ in range(_ROUNDS):
    begin = time.perf_counter()
    for _ in range(number):
      found = call(*args)
    jax.block_until_ready(found)
    taken.append((time.perf_counter() - begin) / number)
  return float(np.median(taken))


def latency(
  calls: int, call: Callable[..., Any], *args: Any
) -> dict[str, float]:
  """Returns the median and the 99th percentile of calls one by one, ms."""
  jax.block_until_ready(call(*args))
  taken = []
  for _ in range(calls):
    begin = time.perf_counter()
    jax.block_until_ready(call(*args))
    taken.append(1e3 * (time.perf_counter() - begin))
  return {
    'median_ms': float(np.median(taken)),
    'p99_ms': float(np.percentile(taken, 99)),
  }
