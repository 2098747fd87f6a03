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
from collections.abc import Sequence
import contextlib
import pathlib
import statistics
import tempfile
from typing import Any

from absl import flags
import ml_collections

from dare_jax import config_flag
from dare_jax.bench import process
from dare_jax.bench import random_log
from dare_jax.bench.published import official
from dare_jax.bench.published import peer_model
from dare_jax.bench.training import train
from dare_jax.store import history_store


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = config_flag.define()
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
  rounds = flags.DEFINE_integer(
    'rounds', 3, 'Turns of each side.', lower_bound=1
  )
  seconds = flags.DEFINE_float('seconds', 8.0, 'Time of a turn.')

  def measure() -> list[dict[str, Any]]:
    """Returns the rows of both sides at each size of the item tables."""
    folder = official.check(checkout.value)
    sizes = train.parse('rows', rows.value)
    windows = train.parse('moments_per_window', shared.value)
    found = []
    for size in sizes:
      shape = random_log.Shape(size, categories.value, size - 2)
      trainings = [published(config.value, shape, w) for w in (1, *windows)]
      found += compare(trainings, folder, rounds.value, seconds.value)
    return found

  return measure


def published(
  config: ml_collections.ConfigDict,
  shape: random_log.Shape,
  moments_per_window: int,
) -> train.Training:
  """Returns a training of the published sizes: 2,049 targets a step.

  Args:
    config: gives the model, its optimizer and everything else.
    shape: sizes of the random log.
    moments_per_window: number of moments that share a history.

  Raises:
    UsageError: a bad config.
  """
  point = train.Point(
    preset=config.model.name,
    length=200,
    dim=16,
    moments=683,
    moments_per_window=moments_per_window,
    optimizer=config.optim.tables,
    rows=shape.rows,
  )
  return train.of_config(config, point, shape)


def compare(
  trainings: Sequence[train.Training],
  checkout: pathlib.Path,
  rounds: int,
  seconds: float,
) -> list[dict[str, Any]]:
  """Returns a row for the official code, then one for each of our trainings.

  Args:
    trainings: the sizes of the official side, whose moments have a history
      each; then the trainings of our side, on the same log.
    checkout: folder of the official code.
    rounds: how often each side has its turn.
    seconds: time of a turn.

  Raises:
    UsageError: the checkout's model is not as expected.
  """
  theirs, *ours = trainings
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    num_events = random_log.events(theirs.options.data)
    store = random_log.write(folder, theirs.shape, num_events).path
    workers = [process.Worker(None, peer_model.Side, theirs, checkout, store)]
    stack.callback(workers[0].close)
    for training in ours:
      workers.append(process.Worker(training.settings, Side, training, store))
      stack.callback(workers[-1].close)
    turns: list[list[dict[str, float]]] = [[] for _ in workers]
    for _ in range(rounds):
      for worker, found in zip(workers, turns, strict=True):
        found.append(worker.call('steps', seconds))
    peaks = [worker.call('peak_mb') for worker in workers]
  names = ['official', *['dare_jax'] * len(ours)]
  return [
    {
      'side': name,
      'rows': training.shape.rows,
      'moments_per_window': training.point.moments_per_window,
    }
    | summarize(found, turns[0])
    | {'peak_rss_mb': peak}
    for name, training, found, peak in zip(
      names, trainings, turns, peaks, strict=True
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

  def __init__(self, training: train.Training, store: pathlib.Path) -> None:
    self._timer, self._targets = train.timer_of(
      training, history_store.open_store(store)
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
