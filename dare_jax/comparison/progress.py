"""Progress over all runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime
import re
import sys
import time

import tqdm

_STEP = re.compile(r'step (\d+)/(\d+)')


def steps_of(line: str) -> tuple[int, int] | None:
  """Returns the step and the number of steps that a run's line tells.

  >>> steps_of('step 150/300  val/auc 0.7'), steps_of('preparing')
  ((150, 300), None)
  """
  match = _STEP.match(line)
  return None if match is None else (int(match[1]), int(match[2]))


class Progress:
  """Counts runs, those under way by their steps."""

  def __init__(self, total: int, finished: int, what: str = 'runs') -> None:
    """Starts the clock.

    Args:
      total: number of runs.
      finished: number of runs that had finished before.
      what: what is run, in words: 'runs'.
    """
    self._total = total
    self._finished = finished
    self._done = 0.0  # Since the clock started.
    self._parts: dict[int, float] = {}  # Share done of each run under way.
    self._heads: dict[int, str] = {}
    self._begin = time.monotonic()
    self._bar = None
    if finished:
      print(f'{finished} of {total} {what} were finished before', flush=True)
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
    self._heads[number] = f'[{number}/{self._total}] {name}'
    self._parts[number] = 0.0
    if self._bar is None:
      print(f'{self._heads[number]}: starts; {self._clock()}', flush=True)
    else:
      self._update(f'{self._heads[number]}: starts')

  def line(self, number: int, text: str) -> None:
    """Takes note of a line that a run has printed."""
    if (steps := steps_of(text)) is None:
      return
    self._parts[number] = steps[0] / max(1, steps[1])
    head = self._heads[number]
    if self._bar is not None:
      # One metric has room.
      self._update(f'{head}: {"  ".join(text.split("  ")[:2])}')
    elif 'val/' in text:
      print(f'{head}: {text}', flush=True)

  def end(self, number: int, text: str) -> None:
    """Says how a run has ended."""
    head = self._heads.pop(number)
    del self._parts[number]
    self._done += 1
    if self._bar is None:
      print(f'{head}: {text}; {self._clock()}', flush=True)
    else:
      self._bar.write(f'{head}: {text}')
      self._update('')

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()

  def _update(self, text: str) -> None:
    assert self._bar is not None
    self._bar.n = self._finished + self._done + sum(self._parts.values())
    self._bar.set_description_str(text)

  def _clock(self) -> str:
    elapsed = time.monotonic() - self._begin
    text = f'{_format(elapsed)} so far'
    left = self._total - self._finished - self._done
    if self._done and left:
      text += f', about {_format(elapsed / self._done * left)} left'
    return text


def _format(seconds: float) -> str:
  return str(datetime.timedelta(seconds=round(seconds)))
