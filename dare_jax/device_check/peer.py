"""The official PyTorch code's step and search on the same device."""

from __future__ import annotations

from collections.abc import Callable
import importlib.util
import pathlib
import statistics
import time
from typing import Any

from dare_jax import errors
from dare_jax.bench.published import official
from dare_jax.device_check import made
from dare_jax.device_check import reporting
from dare_jax.device_check import sizes as sizes_lib

_BATCHES = 4
_DIM = 16
_ROUNDS = 5
_CALLS = 10


def run(
  sizes: sizes_lib.Sizes, report: reporting.Report, checkout: str | None
) -> None:
  """Times what PyTorch does of what was timed before.

  Args:
    sizes: the sizes of the check.
    report: takes the rows.
    checkout: folder of the official code; None: there is none.
  """
  if importlib.util.find_spec('torch') is None:
    report.skip('PyTorch', 'torch is not installed')
    return
  with report.case('search by PyTorch'):
    _search(sizes, report)
  case = f'official step, {sizes.rows[0]:,} rows, {sizes.batches[0]} moments'
  try:
    folder = official.check(checkout)
  except errors.UsageError as error:
    report.skip(case, str(error))
    return
  with report.case(case):
    _train(case, folder, sizes, report)


def _train(
  case: str,
  folder: pathlib.Path,
  sizes: sizes_lib.Sizes,
  report: reporting.Report,
) -> None:
  rows, moments = sizes.rows[0], sizes.batches[0]
  batches = [
    official.single_rows(made.batch(number, rows, moments, sizes.length))
    for number in range(_BATCHES)
  ]
  training = official.Training(
    folder,
    batches,
    official.Sizes(rows, made.CATEGORIES, _DIM, sizes.length, sizes.top_k),
  )
  found = training.steps(2 * sizes.step_seconds)
  report.add(case, 'device', training.device)
  for measure in ('step_ms', 'examples_per_s'):
    report.add(case, measure, found[measure])
  ours = f'dare, {rows:,} rows, {moments:,} moments a step'
  for row in report.rows():
    if (row['case'], row['measure']) == (ours, 'fed_examples_per_s'):
      times = row['value'] / found['examples_per_s']
      report.add(case, 'ours_is_times_as_fast', times)


def _search(sizes: sizes_lib.Sizes, report: reporting.Report) -> None:
  import torch

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  shape = (sizes.users, sizes.dim, sizes.behaviors)
  keys = torch.randn(shape, device=device)
  for candidates in sizes.candidates:
    query = torch.randn(sizes.users, candidates, sizes.dim, device=device)

    def search(query: Any = query) -> Any:
      return (query @ keys).topk(sizes.top_k)

    case = f'search by PyTorch, float32 keys, {candidates} targets'
    taken = _seconds(search, device)
    report.add(case, 'search_ms', 1e3 * taken, note=f'on {device}')


def _seconds(call: Callable[[], Any], device: str) -> float:
  """Returns the time of a call among others, as `clock.seconds` takes it."""
  import torch

  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
  call()
  wait()
  taken = []
  for _ in range(_ROUNDS):
    begin = time.perf_counter()
    for _ in range(_CALLS):
      call()
    wait()
    taken.append((time.perf_counter() - begin) / _CALLS)
  return statistics.median(taken)
