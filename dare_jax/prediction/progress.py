"""How far the scores are: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime
import sys
import time

import tqdm

_EVERY_SECONDS = 10.0


class Progress:
  """Counts rows; the rate is of those scored since the clock started."""

  def __init__(self, total: int, finished: int) -> None:
    """Starts the clock.

    Args:
      total: number of rows to score.
      finished: number of rows that were scored before.
    """
    self._total, self._before, self._done = total, finished, 0
    self._begin = self._told = time.monotonic()
    self._bar = None
    if finished:
      print(
        f'{finished:,} of {total:,} rows were scored before',
        file=sys.stderr,
        flush=True,
      )
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        total=total, initial=finished, unit='row', unit_scale=True, smoothing=0
      )

  def add(self, rows: int) -> None:
    """Counts rows that are scored."""
    self._done += rows
    if self._bar is not None:
      self._bar.update(rows)
    elif time.monotonic() - self._told > _EVERY_SECONDS:
      self._told = time.monotonic()
      print(self._line(), file=sys.stderr, flush=True)

  def _line(self) -> str:
    there = self._before + self._done
    left = (self._total - there) / max(self.rate, 1e-9)
    return (
      f'{there:,} of {self._total:,} rows ({there / self._total:.0%}),'
      f' {self.rate:,.0f} rows/s, about'
      f' {datetime.timedelta(seconds=round(left))} left'
    )

  @property
  def rate(self) -> float:
    """Rows a second."""
    return self._done / max(time.monotonic() - self._begin, 1e-9)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
