"""How long one request takes: a search over cached keys, and scores."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import types
from dare_jax.device_check import clock
from dare_jax.device_check import made
from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib
from dare_jax.serving import user_state

_SECONDS = 10.0


def run(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  """Takes latencies of one user's requests, one after the other."""
  _search(sizes, report)
  model = made.ranker('dare', sizes.serving_rows)
  one = made.batch(0, sizes.serving_rows, 1, sizes.length)
  variables = jax.jit(model.init)(jax.random.key(0), one)
  score = jax.jit(functools.partial(_logits, model))
  for candidates in sizes.scored:
    case = f'scores of {candidates} targets, {sizes.length} behaviors'
    if not report.has_time(case, _SECONDS):
      continue
    with report.case(case):
      asked = _asked(one, candidates, sizes.serving_rows)
      found = clock.latency(sizes.calls, score, variables, asked)
      for measure, value in found.items():
        report.add(case, measure, value, note='ids from the host each time')


def _logits(model: Any, variables: Any, batch: types.Batch) -> Any:
  return model.apply(variables, batch).logits


def _search(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  keys = jax.random.normal(jax.random.key(0), (1, sizes.behaviors, sizes.dim))
  mask = jnp.ones((1, sizes.behaviors), bool)
  state = user_state.build(keys, mask)
  bias = jnp.zeros(state.capacity + 1)
  search = jax.jit(functools.partial(user_state.search, k=sizes.top_k))
  for candidates in sizes.candidates:
    case = f'search of {sizes.behaviors} behaviors, {candidates} targets'
    if not report.has_time(case, _SECONDS):
      continue
    with report.case(case):
      query = np.ones((1, candidates, sizes.dim), np.float32)
      found = clock.latency(sizes.calls, search, state, query, bias)
      for measure, value in found.items():
        report.add(case, measure, value, note="the platform's own choice")


def _asked(one: types.Batch, candidates: int, rows: int) -> Any:
  """Returns a request for one user's targets."""
  rng = np.random.default_rng(0)
  shape = (1, 1, candidates)
  ids = {
    field: rng.integers(2, size, shape, np.int32)
    for field, size in (('item', rows), ('category', made.CATEGORIES))
  }
  ones = np.ones(shape, np.float32)
  return types.Batch(
    history=one.history,
    end=one.end,
    targets=types.Targets(ids=ids, label=ones, weight=ones),
  )
