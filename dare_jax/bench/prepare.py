"""Benchmark: a log in Taobao's format, from file to history store."""

from __future__ import annotations

from collections.abc import Callable
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from absl import flags
import numpy as np
import polars as pl

_EVENTS_PER_USER = 100
_NUM_ITEMS = 800_000
_NUM_CATEGORIES = 9_000
_ITEM_EXPONENT = 0.8
_FIRST_SECOND = 1_511_539_200
_SECONDS = 777_600
# Runs in a process of its own, so that the peak is that of prepare alone.
_PREPARE = """
import json, pathlib, sys, time
from dare_jax.configs import taobao
from dare_jax.logs import options
from dare_jax.store import datasets
data = taobao.get_config().data
data.input, data.data_dir = sys.argv[1:]
start = time.perf_counter()
store = datasets.prepare(options.of_section(data))
seconds = time.perf_counter() - start
# Not getrusage, which also counts what the parent held before exec.
status = pathlib.Path('/proc/self/status').read_text()
peak = int(status.split('VmHWM:')[1].split()[0]) * 1024
print(json.dumps([seconds, peak, len(store.behaviors), str(store.path)]))
"""


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  rows = flags.DEFINE_integer('rows', 10_000_000, 'Rows of the log.')
  return lambda: [run(rows.value)]


def run(rows: int = 10_000_000) -> dict[str, Any]:
  """Returns time, peak memory and store size of preparing a log.

  The log has 100 page views a user, 800,000 items with Zipf popularity, 9,000
  categories, and times in no order; users follow one another, as in the
  original.

  Args:
    rows: rows of the log.

  Returns:
    One flat row of results, units in the keys.
  """
  with tempfile.TemporaryDirectory() as folder:
    log = pathlib.Path(folder) / 'UserBehavior.csv'
    write_log(log, rows)
    done = subprocess.run(
      [sys.executable, '-c', _PREPARE, str(log), folder],
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    )
    last = done.stdout.splitlines()[-1]
    seconds, peak_bytes, events, store = json.loads(last)
    files = [path for path in pathlib.Path(store).rglob('*') if path.is_file()]
    store_bytes = sum(path.stat().st_size for path in files)
    log_bytes = log.stat().st_size
  return {
    'rows': rows,
    'log_mb': round(log_bytes / 1e6, 1),
    'seconds': round(seconds, 2),
    'rows_per_s': round(rows / seconds),
    'peak_rss_mb': round(peak_bytes / 1e6),
    'store_bytes_per_event': round(store_bytes / events, 2),
  }


def write_log(path: pathlib.Path, rows: int) -> None:
  """Writes a log of page views in Taobao's format, always the same."""
  rng = np.random.default_rng(0)
  weights = np.arange(1, _NUM_ITEMS + 1) ** -_ITEM_EXPONENT
  cdf = np.cumsum(weights) / weights.sum()
  item = np.minimum(np.searchsorted(cdf, rng.random(rows)), _NUM_ITEMS - 1)
  # Published ids are numbers without order.
  number = rng.permutation(5 * _NUM_ITEMS)[:_NUM_ITEMS]
  category = rng.integers(0, _NUM_CATEGORIES, _NUM_ITEMS)
  frame = pl.DataFrame(
    {
      'user': np.arange(rows) // _EVENTS_PER_USER + 1,
      'item': number[item],
      'category': category[item],
      'type': pl.repeat('pv', rows, eager=True),
      'time': _FIRST_SECOND + rng.integers(0, _SECONDS, rows),
    }
  )
  frame.write_csv(path, include_header=False)
