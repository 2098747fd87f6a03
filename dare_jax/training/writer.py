"""Where metrics go: `metrics.jsonl`, TensorBoard events, and the screen."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
import sys
from typing import Any

import tensorboardX
import tqdm

from dare_jax.parallel import processes


class MetricsWriter:
  """Appends metric lines; a resumed run leaves no gap and no repeat.

  Of several processes the first writes; the others only count the lines.
  """

  def __init__(self, workdir: pathlib.Path, step: int, lines: int) -> None:
    """Opens the files, dropping all but the first `lines` metric lines.

    A step alone does not say what to drop: the validation or the test of the
    last saved step may have been written before or after it was saved.

    Args:
      workdir: holds the files.
      step: the step to go on from.
      lines: metric lines that were written up to then.
    """
    self.lines = lines
    self._file = None
    if not processes.is_first():
      return
    path = workdir / 'metrics.jsonl'
    self.lines = _truncate(path, lines)
    self._file = path.open('a', buffering=1)
    self._board = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=step + 1 if step else None
    )

  def write(
    self, step: int, epoch: float, time_s: float, values: Mapping[str, float]
  ) -> None:
    """Writes one line: step, epoch, time_s and `split/metric` values."""
    self.lines += 1
    if self._file is None:
      return
    line: dict[str, Any] = {
      'step': step,
      'epoch': round(epoch, 6),
      'time_s': round(time_s, 3),
    }
    self._file.write(json.dumps(line | dict(values)) + '\n')
    for name, value in values.items():
      self._board.add_scalar(name, value, step)

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
      self._board.close()


def _truncate(path: pathlib.Path, lines: int) -> int:
  """Keeps the first `lines` whole lines; returns how many there are."""
  if not path.exists():
    return 0
  whole = path.read_bytes().split(b'\n')[:-1]  # What follows is half a line.
  kept = whole[:lines]
  temporary = path.with_suffix('.tmp')
  temporary.write_bytes(b''.join(line + b'\n' for line in kept))
  temporary.replace(path)
  return len(kept)


class Console:
  """A progress bar on a terminal, plain lines elsewhere; one process shows."""

  def __init__(self, total: int, step: int) -> None:
    self._bar = None
    self._shows = processes.is_first()
    if self._shows and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        total=total, initial=step, unit='step', dynamic_ncols=True
      )
    self._total = total

  def advance(self) -> None:
    if self._bar is not None:
      self._bar.update()

  def show(self, step: int, values: Mapping[str, float]) -> None:
    """Shows running metrics."""
    if not self._shows:
      return
    text = '  '.join(f'{name} {_format(v)}' for name, v in values.items())
    if self._bar is None:
      print(f'step {step}/{self._total}  {text}', flush=True)
    elif any(name.startswith('val/') for name in values):
      self._bar.write(f'step {step}  {text}')
    else:
      self._bar.set_postfix_str(text)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def _format(value: float) -> str:
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4f}'
