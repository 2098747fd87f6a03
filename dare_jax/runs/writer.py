"""Where metrics go: `metrics.jsonl`, TensorBoard events, and the screen."""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
import struct
import sys
import time
from typing import Any
import zlib

from etils import epath
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2
import tqdm

from dare_jax import errors
from dare_jax import storage
from dare_jax.parallel import processes


class MetricsWriter:
  """Appends metric lines; a resumed run leaves no gap and no repeat.

  Of several processes the first writes; the others only count the lines.
  """

  def __init__(
    self, workdir: epath.PathLike, step: int, lines: int, crc: int
  ) -> None:
    """Opens the files, dropping all but the first `lines` metric lines.

    A step alone does not say what to drop: the validation or the test of the
    last saved step may have been written before or after it was saved.

    Args:
      workdir: holds the files.
      step: the step to go on from.
      lines: metric lines that were written up to then.
      crc: the CRC-32 of these lines.

    Raises:
      UsageError: the lines are not those that were written, or none can be
        written; the methods raise the latter, too.
    """
    self.lines = lines
    self.crc = crc
    self._file: storage.GrowingFile | None = None
    if not processes.is_first():
      return
    folder = storage.locate(workdir)
    path = folder / 'metrics.jsonl'
    kept = _first_lines(path, lines)
    content = b''.join(kept)
    self.lines, self.crc = len(kept), zlib.crc32(content)
    if self.crc != crc and storage.read(path) is not None:
      raise errors.UsageError(
        f'{path}: its first {lines} lines are not those that led to step'
        f' {step}, where the newest checkpoint is; restore the file from a'
        ' copy, or remove it to go on without its lines.'
      )
    self._file = storage.GrowingFile(path, content)
    self._board = _Board(folder / 'tensorboard', step)

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
    entry = f'{json.dumps(line | dict(values))}\n'.encode()
    self._file.append(entry)
    self.crc = zlib.crc32(entry, self.crc)
    self._board.write(step, values)

  def sync(self) -> None:
    """Returns when the lines so far are safe; call it before a save."""
    if self._file is not None:
      self._file.sync()

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
      self._board.close()


def _first_lines(path: epath.Path, count: int) -> list[bytes]:
  """Returns the first whole lines of a file, at most so many."""
  content = storage.read(path) or b''
  lines = content.split(b'\n')[:-1]  # What follows is half a line.
  return [line + b'\n' for line in lines[:count]]


class _Board:
  """Scalars for TensorBoard, in a file for each time the run is taken up."""

  def __init__(self, folder: epath.Path, step: int) -> None:
    """Makes the file, which hides what others hold from `step` + 1 on."""
    storage.make_folder(folder)
    name = f'events.out.tfevents.{time.time():.0f}.{os.getpid()}'
    self._file = storage.GrowingFile(folder / name)
    self._event(file_version='brain.Event:2')
    if step:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._event(step=step + 1, session_log=start)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds one value of each metric at a step."""
    scalars = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in values.items()
    ]
    self._event(step=step, summary=summary_pb2.Summary(value=scalars))

  def _event(self, **fields: Any) -> None:
    """Adds a record: its length, its bytes, and a checksum of either."""
    event = event_pb2.Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack('<Q', len(event))
    crcs = [
      struct.pack('<I', record_writer.masked_crc32c(part))
      for part in (length, event)
    ]
    self._file.append(length + crcs[0] + event + crcs[1])

  def close(self) -> None:
    self._file.close()


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
    if not self._shows or not values:
      return
    text = '  '.join(f'{name} {_format(v)}' for name, v in values.items())
    if self._bar is None:
      print(f'step {step}/{self._total}  {text}', flush=True)
    elif any(name.startswith('val/') for name in values):
      self._bar.write(f'step {step}  {text}')
    else:
      self._bar.set_postfix_str(text)

  def note(self, step: int, text: str) -> None:
    """Shows what is to be known about a step."""
    if not self._shows:
      return
    line = f'step {step}/{self._total}  {text}'
    if self._bar is None:
      print(line, flush=True)
    else:
      self._bar.write(line)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def _format(value: float) -> str:
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4f}'
