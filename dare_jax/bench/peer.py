"""The official PyTorch code's training step beside ours, on the same data.

    git clone https://github.com/thuml/DARE
    python -m dare_jax.bench peer --checkout=DARE

Its model is imported from that checkout and needs torch; nothing of it is part
of this package. A step there is what its trainer does for a batch: forward,
both losses, l2, backward, dense Adam over all rows; reading its data is left
out. A step here is the whole training step, the wait for its data included.
Each side has a process of its own with its defaults, and they take turns; they
see the same moments, there with a history for each target, as its format is.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import pathlib
import statistics
import tempfile
from typing import Any

from absl import flags
import ml_collections

from dare_jax import cli
from dare_jax.bench import process
from dare_jax.bench import random_log
from dare_jax.bench import train
from dare_jax.bench.published import official
from dare_jax.bench.published import peer_model
from dare_jax.data import options as data_options
from dare_jax.process import runtime
from dare_jax.store import history_store


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = cli.define_config()
  checkout = flags.DEFINE_string(
    'checkout', None, 'A checkout of github.com/thuml/DARE. Required.'
  )
  rows = flags.DEFINE_list(
    'rows', ['68000', '4068791'], 'Rows of the item tables.'
  )
  categories = flags.DEFINE_integer(
    'categories', 9_408, 'Rows of the category tables.', lower_bound=3
  )
  shared = flags.DEFINE_list(
    'moments_per_window', ['1', '19'], 'Moments that share a history, ours.'
  )
  rounds = flags.DEFINE_integer('rounds', 3, 'Turns of each.', lower_bound=1)
  seconds = flags.DEFINE_float('seconds', 8.0, 'Time of a turn.')

  def measure() -> list[dict[str, Any]]:
    folder = official.check(checkout.value)
    sizes = train.parse('rows', rows.value)
    windows = train.parse('moments_per_window', shared.value)
    found = []
    for size in sizes:
      shape = random_log.Shape(size, categories.value, size - 2)
      found += compare(
        config_for(config.value), folder, shape, windows, rounds.value,
        seconds.value,
      )  # fmt: skip
    return found

  return measure


def config_for(
  config: ml_collections.ConfigDict, moments: int = 683, length: int = 200
) -> ml_collections.ConfigDict:
  """Returns a config with the published sizes: 2,049 targets a step."""
  made = config.copy_and_resolve_references()
  made.data.split = 'leave_last'
  made.data.history_length = length
  made.train.batch_size = moments
  made.train.moments_per_window = 1
  made.model.attention_dim = made.model.representation_dim = 16
  return made


def compare(
  config: ml_collections.ConfigDict,
  checkout: pathlib.Path,
  shape: random_log.Shape,
  windows: list[int],
  rounds: int,
  seconds: float,
) -> list[dict[str, Any]]:
  """Returns a row for the official code, then one for each of `windows`.

  Args:
    config: of our run.
    checkout: of the official code.
    shape: of the log.
    windows: moments that share a history.
    rounds: how often each side has its turn.
    seconds: of a turn.

  Raises:
    UsageError: a bad config, or the checkout's model is not as expected.
  """
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    data = data_options.of_section(config.data)
    store = random_log.write(folder, shape, random_log.events(data))
    workers = [
      process.Worker(None, peer_model.Side, config, checkout, store.path)
    ]
    stack.callback(workers[0].close)
    for number in windows:
      own = config.copy_and_resolve_references()
      own.train.moments_per_window = number
      settings = runtime.of_section(own.runtime)
      workers.append(process.Worker(settings, Side, own, store.path))
      stack.callback(workers[-1].close)
    turns: list[list[dict[str, float]]] = [[] for _ in workers]
    for _ in range(rounds):
      for worker, found in zip(workers, turns, strict=True):
        found.append(worker.call('steps', seconds))
    peaks = [worker.call('peak_mb') for worker in workers]
  names = ['official', *['dare_jax'] * len(windows)]
  return [
    {'side': name, 'rows': shape.rows, 'moments_per_window': number}
    | summarize(found, turns[0])
    | {'peak_rss_mb': peak}
    for name, number, found, peak in zip(
      names, [1, *windows], turns, peaks, strict=True
    )
  ]


def summarize(
  turns: list[dict[str, float]], base: list[dict[str, float]]
) -> dict[str, float]:
  """Returns medians over the turns, and how many times the base's speed.

  Args:
    turns: `step_ms`, `targets_per_step` and `examples_per_s` of each turn.
    base: the other side's turns just before.
  """
  times = [
    own['examples_per_s'] / other['examples_per_s']
    for own, other in zip(turns, base, strict=True)
  ]
  medians = {
    key: statistics.median(turn[key] for turn in turns) for key in turns[0]
  }
  return medians | {
    'times_official': statistics.median(times),
    'least': min(times),
    'most': max(times),
  }


class Side:
  """Our training on a store."""

  def __init__(
    self, config: ml_collections.ConfigDict, store: pathlib.Path
  ) -> None:
    self._timer, self._targets = train.timer_of(
      config, history_store.open_store(store)
    )

  def steps(self, seconds: float) -> dict[str, float]:
    """Trains for some seconds."""
    found = self._timer.whole(seconds, None)
    return {
      'targets_per_step': self._targets,
      'step_ms': found['step_ms'],
      'examples_per_s': self._targets * found['steps_per_s'],
    }

  def peak_mb(self) -> float:
    return process.peak_mb()
