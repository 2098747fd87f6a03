"""The output: parts beside it while it is made, then one file.

A part is a block's rows. It is written under another name and then renamed, so
that each is there whole or not at all, and a killed run goes on after them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import gzip
import json
import os
import pathlib
import shutil
import sys
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dare_jax import errors
from dare_jax.bundle import scoring
from dare_jax.prediction import blocks
from dare_jax.prediction import columns
from dare_jax.process import locks

_PLAN = 'plan.json'
_COPY_BYTES = 4 << 20
_KINDS = ('.csv', '.csv.gz', '.parquet')


def check(given: str) -> pathlib.Path:
  """Returns the path of an output.

  Raises:
    UsageError: its name says nothing that can be written, or there is no folder
      to write it in.
  """
  path = pathlib.Path(given).expanduser()
  if not path.name.endswith(_KINDS):
    raise errors.UsageError(
      f'--output={given}: expected a name that ends in {", ".join(_KINDS)}.'
    )
  if path.is_dir():
    raise errors.UsageError(
      f'--output={given}: is a folder; name a file in it.'
    )
  if not path.parent.is_dir():
    raise errors.UsageError(
      f'--output={given}: there is no folder {path.parent}; make it first.'
    )
  if not os.access(path.parent, os.W_OK):
    raise errors.UsageError(
      f'--output={given}: no permission to write in {path.parent}.'
    )
  return path


def of_shard(path: pathlib.Path, number: int, shards: int) -> pathlib.Path:
  """Returns the output of a shard, by its number from 1 on.

  >>> of_shard(pathlib.Path('a/scores.csv.gz'), 2, 16).name
  'scores-00002-of-00016.csv.gz'
  """
  kind = next(kind for kind in _KINDS[::-1] if path.name.endswith(kind))
  stem = path.name.removesuffix(kind)
  return path.with_name(f'{stem}-{number:05}-of-{shards:05}{kind}')


class Output:
  """Parts of an output, of one process at a time."""

  def __init__(self, path: pathlib.Path, plan: Mapping[str, Any]) -> None:
    """Takes over the parts of an earlier run of the same plan; discards others.

    Args:
      path: the path of the output.
      plan: what the output depends on, as JSON has it.

    Raises:
      UsageError: another process makes the same output, or it cannot be
        written.
    """
    self.path = path
    self._folder = path.with_name(f'{path.name}.parts')
    self._lock: locks.Lock | None = None
    with self._told():
      self._folder.mkdir(exist_ok=True)
      self._take_lock()
      text = json.dumps(plan, indent=1, sort_keys=True)
      file = self._folder / _PLAN
      if not file.exists() or file.read_text() != text:
        self._discard(file, json.loads(text))
        _replace(file, lambda path: path.write_text(text))

  def _take_lock(self) -> None:
    try:
      self._lock = locks.Lock(self._folder.with_name(f'{self.path.name}.lock'))
    except locks.HeldError as error:
      raise errors.UsageError(
        f'--output={self.path}: is being made by another process ({error});'
        ' wait for it, or give another output.'
      ) from None
    except locks.UnsupportedError:
      pass

  def _discard(self, plan: pathlib.Path, new: Mapping[str, Any]) -> None:
    """Removes the parts of another plan, and says what differs."""
    parts = list(self._folder.glob('*.part'))
    if parts:
      try:
        old = json.loads(plan.read_text())
        differ = [key for key in new if old.get(key) != new[key]]
      except (OSError, ValueError):
        differ = ['plan']
      print(
        f'{len(parts)} parts of before are discarded: other'
        f' {", ".join(differ)}',
        file=sys.stderr,
        flush=True,
      )
    plan.unlink(missing_ok=True)
    for file in self._folder.iterdir():
      file.unlink()

  def has(self, number: int) -> bool:
    """Whether a part is there."""
    return self._part(number).exists()

  def put(
    self, number: int, content: bytes | pa.Table, told: Mapping[str, Any]
  ) -> None:
    """Keeps a part.

    Args:
      number: the number of the block.
      content: lines of CSV, or a table.
      told: what `told` gives back.
    """

    def write(path: pathlib.Path) -> None:
      if isinstance(content, pa.Table):
        pq.write_table(content, path, row_group_size=max(1, len(content)))
      else:
        path.write_bytes(self._packed(content))

    with self._told():
      text = json.dumps(told)
      _replace(self._told_at(number), lambda path: path.write_text(text))
      _replace(self._part(number), write)

  def told(self, number: int) -> dict[str, Any]:
    """Returns what was kept beside a part."""
    with self._told():
      return json.loads(self._told_at(number).read_text())

  def finish(self, header: bytes | pa.Schema, numbers: range) -> None:
    """Makes one file of the parts.

    Args:
      header: first bytes of CSV, or the schema of a table.
      numbers: the numbers of the blocks.
    """
    with self._told():
      if isinstance(header, pa.Schema):
        _replace(self.path, lambda path: self._join(path, header, numbers))
      else:
        _replace(self.path, lambda path: self._append(path, header, numbers))
      shutil.rmtree(self._folder)

  def _append(self, path: pathlib.Path, header: bytes, numbers: range) -> None:
    with path.open('wb') as file:
      if header:
        file.write(self._packed(header))
      for number in numbers:
        with self._part(number).open('rb') as part:
          shutil.copyfileobj(part, file, _COPY_BYTES)

  def _join(
    self, path: pathlib.Path, schema: pa.Schema, numbers: range
  ) -> None:
    with pq.ParquetWriter(path, schema) as writer:
      for number in numbers:
        table = pq.ParquetFile(self._part(number)).read()
        if len(table):
          writer.write_table(table, row_group_size=len(table))

  def _packed(self, text: bytes) -> bytes:
    """Returns text as the output has it; packed parts make a packed whole."""
    if self.path.suffix == '.gz':
      return gzip.compress(text, 6, mtime=0)
    return text

  @property
  def is_table(self) -> bool:
    """Whether the output is Parquet."""
    return self.path.suffix == '.parquet'

  def _part(self, number: int) -> pathlib.Path:
    return self._folder / f'{number:08}.part'

  def _told_at(self, number: int) -> pathlib.Path:
    return self._folder / f'{number:08}.json'

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    """Turns what a disk refuses into a UsageError."""
    try:
      yield
    except OSError as error:
      raise errors.UsageError(
        f'--output={self.path}: cannot be written ({error.strerror or error});'
        ' make room or mend it and run the same command, which goes on after'
        ' the parts that are there.'
      ) from None

  def close(self) -> None:
    """Lets others make the output."""
    if self._lock is not None:
      self._lock.release()


def scores(logits: np.ndarray) -> pl.DataFrame:
  """Returns the columns that are added for logits, float32 [n]."""
  probability = scoring.probabilities(logits)
  return pl.DataFrame(
    {
      columns.LOGIT: logits,
      columns.PROBABILITY: probability.astype(np.float32),
    }
  )


def render(
  rows: blocks.Rows, which: Any, added: pl.DataFrame, as_table: bool
) -> bytes | pa.Table:
  """Returns a part of the output.

  Args:
    rows: the rows of the input.
    which: the numbers of the rows to write, as `blocks.Rows` takes them.
    added: columns to add.
    as_table: whether the output is Parquet; otherwise CSV.
  """
  if as_table:
    return rows.as_table(which, added)
  return rows.as_text(which, added)


def _replace(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
  """Writes a file that is there whole or not at all."""
  temporary = path.with_name(f'{path.name}.tmp')
  write(temporary)
  with temporary.open('rb') as file:
    os.fsync(file.fileno())
  temporary.replace(path)
