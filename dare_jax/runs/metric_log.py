"""What a training tells while it runs: lines of metrics, and the console."""

from __future__ import annotations

import contextlib

from dare_jax.evaluation import metrics
from dare_jax.runs import progress as progress_lib
from dare_jax.runs import report
from dare_jax.runs import workdir as workdir_lib
from dare_jax.runs import writer

_SHOWN = ('loss', 'auc', 'gauc', 'logloss', 'accuracy', 'examples_per_s')


class MetricLog:
  """Writes the metrics of a run to its workdir, and shows them."""

  def __init__(
    self,
    folder: workdir_lib.Workdir,
    progress: progress_lib.Progress,
    total_steps: int,
    steps_per_epoch: float,
  ) -> None:
    """Goes on where the progress ends: lines written after it are dropped.

    Args:
      folder: the workdir of the run, held by this process.
      progress: how far the run is.
      total_steps: number of steps of the whole training.
      steps_per_epoch: number of steps of an epoch, by which the log tells
        epochs.

    Raises:
      UsageError: the workdir cannot be written.
    """
    self._folder = folder
    self._steps_per_epoch = steps_per_epoch
    self._writer = folder.write(
      lambda: writer.MetricsWriter(
        folder.path,
        progress.step,
        progress.metric_lines,
        progress.metric_crc,
      )
    )
    self._console = writer.Console(total_steps, progress.step)
    self._window = (progress.train_time_s, progress.targets)

  def rate(self, progress: progress_lib.Progress) -> float:
    """Returns the targets a second of training since it was last asked."""
    seconds = progress.train_time_s - self._window[0]
    targets = progress.targets - self._window[1]
    self._window = (progress.train_time_s, progress.targets)
    return targets / max(seconds, 1e-9)

  def write(
    self, progress: progress_lib.Progress, split: str, found: metrics.Report
  ) -> None:
    """Writes one line, and counts it in the progress.

    Args:
      progress: how far the run is; its count of lines moves on.
      split: 'train', 'val' or 'test'.
      found: the metrics to write.

    Raises:
      UsageError: the workdir cannot be written, or is another's by now.
    """
    epoch = progress.step / self._steps_per_epoch
    values = found.values
    named = {f'{split}/{name}': value for name, value in values.items()}
    self._folder.write(
      lambda: self._writer.write(
        progress.step, epoch, progress.train_time_s, named
      )
    )
    progress.metric_lines = self._writer.lines
    progress.metric_crc = self._writer.crc
    self._console.show(
      progress.step,
      {f'{split}/{name}': values[name] for name in _SHOWN if name in values},
    )
    for line in report.left_out_lines(split, found.left_out, progress.best_by):
      self._console.note(progress.step, line)

  def sync(self) -> None:
    """Flushes the lines to the disk, before a checkpoint counts them."""
    self._folder.write(self._writer.sync)

  def advance(self) -> None:
    """Moves the progress bar by one step."""
    self._console.advance()

  def close(self) -> None:
    """Closes the files, unless another process has taken the folder over."""
    with contextlib.ExitStack() as stack:
      stack.callback(self._console.close)
      if not self._folder.has_lost:  # Closing would write over theirs.
        stack.callback(self._writer.close)
