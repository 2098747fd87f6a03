"""Bulk scores: from an input to an output, block by block."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any

import numpy as np
import polars as pl

from dare_jax import __version__
from dare_jax import errors
from dare_jax.prediction import asked as asked_lib
from dare_jax.prediction import blocks
from dare_jax.prediction import columns as columns_lib
from dare_jax.prediction import output as output_lib
from dare_jax.prediction import progress as progress_lib
from dare_jax.prediction import reading
from dare_jax.prediction import top
from dare_jax.store import log_origin

BLOCK_ROWS = 1 << 18


@dataclasses.dataclass(frozen=True)
class Shard:
  """One of several equal parts of the work.

  Attributes:
    number: which part, from 1 on.
    shards: how many parts there are.
  """

  number: int = 1
  shards: int = 1

  @classmethod
  def parse(cls, given: str | None) -> Shard:
    """Returns what `i/n` says.

    Raises:
      UsageError: it says something else.
    """
    if given is None:
      return cls()
    number, _, shards = given.partition('/')
    is_number = number.isdecimal() and shards.isdecimal()
    if not is_number or not 1 <= int(number) <= int(shards):
      raise errors.UsageError(
        f'--shard={given}: expected i/n with i from 1 to n, such as 1/4.'
      )
    return cls(int(number), int(shards))

  def blocks(self, count: int) -> range:
    """Returns the numbers of this shard's blocks, one after another."""
    first, stop = (
      number * count // self.shards for number in (self.number - 1, self.number)
    )
    return range(first, stop)


@dataclasses.dataclass(frozen=True)
class Job:
  """What is to be scored, and where the scores go.

  Attributes:
    reader: the model, the logs and the names of columns.
    source: the input file.
    output: path of the output.
    shard: the part of the input that this job scores.
    candidates: the list from which each row gets its best; None: each row has a
      target of its own.
    block_rows: number of rows of a block; None: as many as fit well.
    check_stop: called now and then; raises to give up.
  """

  reader: reading.Reader
  source: blocks.Source
  output: pathlib.Path
  shard: Shard = Shard()
  candidates: top.Candidates | None = None
  block_rows: int | None = None
  check_stop: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Done:
  """The outcome of a job.

  Attributes:
    path: the path of the output.
    rows: number of rows of the input, in this shard.
    rate: rows scored in a second.
    unknown: what was not known.
  """

  path: pathlib.Path
  rows: int
  rate: float
  unknown: reading.Unknown


def run(job: Job) -> Done:
  """Makes the output, or goes on with it.

  Raises:
    UsageError: bad input, or an output that cannot be written.
    Stopped: `check_stop` said so; the parts made are kept.
  """
  found = _find(job)
  path = job.output
  if job.shard.shards > 1:
    path = output_lib.of_shard(path, job.shard.number, job.shard.shards)
  if job.source.path.resolve() == path.resolve():
    raise errors.UsageError(f'--output={path}: is the input; name another.')
  size = job.block_rows or (
    BLOCK_ROWS if job.candidates is None else job.candidates.block_rows
  )
  total = job.source.num_rows()
  wanted = job.shard.blocks(-(-total // size))
  output = output_lib.Output(path, _plan(job, found, size, total))
  try:
    return _make(job, found, output, size, range(total), wanted)
  finally:
    output.close()


def _find(job: Job) -> columns_lib.Found:
  """Returns the columns by role, and checks that new ones have room."""
  source, candidates = job.source, job.candidates
  needed, may_be = reading.roles(job.reader.scorer, candidates is None)
  found = columns_lib.find(source, job.reader.names, needed, may_be)
  for name in _added(job).columns:
    columns_lib.require_free(source.path, source.names, name)
  return found


def _added(job: Job) -> pl.DataFrame:
  """Returns the columns that are added, without rows."""
  scores = output_lib.scores(np.zeros(0, np.float32))
  if job.candidates is None:
    return scores
  return job.candidates.beside(np.zeros(0, np.int64), scores)


def _plan(
  job: Job, found: columns_lib.Found, size: int, total: int
) -> dict[str, Any]:
  """Returns all that the output depends on."""
  return {
    'version': __version__,
    'input': _identity(job.source.path) | {'rows': total},
    'columns': dict(found.by_role),
    'model': dict(job.reader.scorer.fingerprint),
    'logs': [log.store.fingerprint for log in job.reader.logs],
    'candidates': job.candidates and job.candidates.identity,
    'shard': [job.shard.number, job.shard.shards],
    'block_rows': size,
  }


def _identity(path: pathlib.Path) -> dict[str, Any]:
  origin = log_origin.look_at(str(path))
  assert origin is not None
  return {'size': origin.size, 'crc32': origin.crc32}


def _make(
  job: Job,
  found: columns_lib.Found,
  output: output_lib.Output,
  size: int,
  every: range,
  wanted: range,
) -> Done:
  rows = len(every[wanted.start * size : wanted.stop * size])
  left = [number for number in wanted if not output.has(number)]
  finished = sum(
    len(every[number * size : (number + 1) * size])
    for number in wanted
    if output.has(number)
  )
  progress = progress_lib.Progress(rows, finished)
  columns = list(dict.fromkeys(found.by_role.values()))
  span = range(left[0], wanted.stop) if left else range(0)
  if left:
    for block in job.source.read(size, span, columns):
      job.check_stop()
      if block.number in left:
        unknown = reading.Unknown()
        part = _score(job, found, block, unknown, output.is_table)
        output.put(block.number, part, dataclasses.asdict(unknown))
        progress.add(len(block))
  progress.close()
  unknown = reading.Unknown()
  for number in wanted:
    unknown.add(output.told(number))
  if job.candidates is not None:
    unknown.add(dataclasses.asdict(job.candidates.unknown))
  output.finish(_header(job, output), wanted)
  return Done(output.path, rows, progress.rate, unknown)


def _header(job: Job, output: output_lib.Output) -> Any:
  """Returns what the output begins with; of shards, text the first alone."""
  if output.is_table:
    return job.source.nothing().as_table(None, _added(job)).schema
  if job.shard.number > 1:
    return b''
  return job.source.header_text(_added(job).columns)


def _score(
  job: Job,
  found: columns_lib.Found,
  block: blocks.Block,
  unknown: reading.Unknown,
  as_table: bool,
) -> Any:
  """Returns the part of the output that a block becomes."""
  reader = job.reader
  moments = reader.moments(block, found, unknown)
  if job.candidates is not None:
    which, added = top.best(job.candidates, reader, moments, job.check_stop)
    return output_lib.render(block.rows, which, added, as_table)
  asked, order = asked_lib.of_rows(
    moments, reader.targets(block, found, unknown)
  )
  logits = np.empty(len(block), np.float32)
  logits[order] = reader.scorer.score(asked, reader.logs[0], job.check_stop)
  return output_lib.render(
    block.rows, None, output_lib.scores(logits), as_table
  )
