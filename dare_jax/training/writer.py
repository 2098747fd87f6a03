"""Where metrics go: `metrics.jsonl`, TensorBoard events, and the screen."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
import sys
from typing import Any

import tensorboardX
import tqdm


class MetricsWriter:
  """Appends metric lines; a resumed run leaves no gap and no repeat."""

  def __init__(self, workdir: pathlib.Path, step: int) -> None:
    """Opens the files, dropping what was written after `step`."""
    self._path = workdir / 'metrics.jsonl'
    _truncate_after(self._path, step)
    self._file = self._path.open('a', buffering=1)
    self._board = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=step + 1 if step else None
    )

  def write(
    self, step: int, epoch: float, time_s: float, values: Mapping[str, float]
  ) -> None:
    """Writes one line: step, epoch, time_s and `split/metric` values."""
    line: dict[str, Any] = {
      'step': step,
      'epoch': round(epoch, 6),
      'time_s': round(time_s, 3),
    }
    self._file.write(json.dumps(line | dict(values)) + '\n')
    for name, value in values.items():
      self._board.add_scalar(name, value, step)

  def close(self) -> None:
    self._file.close()
    self._board.close()


def _truncate_after(path: pathlib.Path, step: int) -> None:
  """Keeps the whole lines up to `step`; a half-written line goes, too."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      if json.loads(line)['step'] <= step:
        kept.append(line + '\n')
    except (ValueError, KeyError, TypeError):
      continue
  temporary = path.with_suffix('.tmp')
  temporary.write_text(''.join(kept))
  temporary.replace(path)


class Console:
  """A progress bar on a terminal, plain lines elsewhere."""

  def __init__(self, total: int, step: int) -> None:
    self._bar = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        total=total, initial=step, unit='step', dynamic_ncols=True
      )
    self._total = total

  def advance(self) -> None:
    if self._bar is not None:
      self._bar.update()

  def show(self, step: int, values: Mapping[str, float]) -> None:
    """Shows running metrics."""
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
