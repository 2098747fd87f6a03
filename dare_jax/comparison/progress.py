"""Progress over all runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime
import re
import sys
import time

import tqdm

_STEP = re.compile(r'step (\d+)/(\d+)')


class Progress:
  """Counts runs, the one under way by its steps."""

  def __init__(self, total: int, finished: int) -> None:
    """Starts the clock.

    Args:
      total: number of runs.
      finished: number of runs that had finished before.
    """
    self._total = total
    self._finished = finished
    self._done = 0.0  # Since the clock started.
    self._part = 0.0  # Of the run under way.
    self._head = ''
    self._begin = time.monotonic()
    self._bar = None
    if finished:
      print(f'{finished} of {total} runs were finished before', flush=True)
    if sys.stderr.isatty() and finished < total:
      self._bar = tqdm.tqdm(
        total=total,
        initial=finished,
        smoothing=0,
        dynamic_ncols=True,
        bar_format='{percentage:3.0f}%|{bar}| {elapsed}<{remaining}  {desc}',
      )

  def start(self, number: int, name: str) -> None:
    """Announces a run, by its number from 1 on."""
    self._head = f'[{number}/{self._total}] {name}'
    self._part = 0.0
    if self._bar is None:
      print(f'{self._head}: starts; {self._clock()}', flush=True)
    else:
      self._update('starts')

  def line(self, text: str) -> None:
    """Takes note of a line that the run has printed."""
    match = _STEP.match(text)
    if match is None:
      return
    self._part = int(match[1]) / max(1, int(match[2]))
    if self._bar is not None:
      self._update('  '.join(text.split('  ')[:2]))  # One metric has room.
    elif 'val/' in text:
      print(f'{self._head}: {text}', flush=True)

  def end(self, text: str) -> None:
    """Says how the run has ended."""
    self._part = 0.0
    self._done += 1
    if self._bar is None:
      print(f'{self._head}: {text}; {self._clock()}', flush=True)
    else:
      self._bar.write(f'{self._head}: {text}')
      self._update('')

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()

  def _update(self, text: str) -> None:
    assert self._bar is not None
    self._bar.n = self._finished + self._done + self._part
    self._bar.set_description_str(f'{self._head}: {text}' if text else '')

  def _clock(self) -> str:
    elapsed = time.monotonic() - self._begin
    text = f'{_format(elapsed)} so far'
    left = self._total - self._finished - self._done
    if self._done and left:
      text += f', about {_format(elapsed / self._done * left)} left'
    return text


def _format(seconds: float) -> str:
  return str(datetime.timedelta(seconds=round(seconds)))
