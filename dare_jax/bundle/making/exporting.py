"""From a run to a bundle in its place."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
from typing import Any

from etils import epath

from dare_jax import errors
from dare_jax import storage
from dare_jax import trained
from dare_jax.bundle import arrays
from dare_jax.bundle import reading
from dare_jax.bundle.making import placing
from dare_jax.bundle.making import report
from dare_jax.bundle.making import shape_list
from dare_jax.bundle.making import verification
from dare_jax.bundle.making import writing


@dataclasses.dataclass(frozen=True)
class Options:
  """How a bundle is written.

  Attributes:
    checkpoint: 'best', 'last' or a step.
    tables: dtype of the tables, one of `arrays.PRECISIONS`.
    shapes: the shapes of the static programs, as `shape_list.parse` reads them.
    overwrite: whether a bundle that is there may be replaced.
  """

  checkpoint: str = 'best'
  tables: str = 'float32'
  shapes: str = shape_list.DEFAULT
  overwrite: bool = False

  def __post_init__(self) -> None:
    if self.tables not in arrays.PRECISIONS:
      raise errors.UsageError(
        f'--tables={self.tables}: expected one of'
        f' {", ".join(arrays.PRECISIONS)}.'
      )


def export(
  workdir: str | os.PathLike[str],
  output: str | os.PathLike[str],
  options: Options = Options(),
) -> str:
  """Writes the bundle of a run; returns the report for the screen.

  Args:
    workdir: the workdir of a run that has saved a checkpoint.
    output: the folder of the bundle.
    options: how it is written.

  Raises:
    UsageError: no such checkpoint, a model that cannot be exported, or a place
      that is taken or cannot be written.
  """
  place = pathlib.Path(os.path.abspath(os.path.expanduser(output)))
  placing.check(place, options.overwrite)
  run = trained.load(workdir, options.checkpoint)
  shapes = shape_list.parse(
    options.shapes, run.history_length, run.model.config.top_k
  )
  located = storage.locate(workdir)
  metrics = _metrics(located, run.step)
  source = writing.Source(
    os.fspath(place), _command(located, place, options), run, metrics
  )
  with placing.beside(place, options.overwrite) as folder:
    stored = writing.write(source, folder, shapes, options.tables)
    opened = reading.open(folder)
    verified = verification.verify(opened, run, stored)
  return report.text(opened, verified, place)


def _command(workdir: epath.Path, place: pathlib.Path, options: Options) -> str:
  """Returns the command that makes a bundle anew."""
  words = [f'--workdir={os.fspath(workdir)}', f'--output={place}']
  for field in dataclasses.fields(Options):
    value = getattr(options, field.name)
    if field.name != 'overwrite' and value != field.default:
      words.append(f'--{field.name}={value}')
  words.append('--overwrite')
  return f'python -m dare_jax.export {shlex.join(words)}'


def _metrics(folder: epath.Path, step: int) -> dict[str, dict[str, Any]]:
  """Returns split -> metrics of a step, as far as the run has told them."""
  found: dict[str, dict[str, Any]] = {}
  for line in (storage.read(folder / 'metrics.jsonl') or b'').splitlines():
    entry = _parsed(line)
    if entry.get('step') != step:
      continue
    for name, value in entry.items():
      split, slash, metric = name.partition('/')
      if slash and split == 'val':
        found.setdefault(split, {})[metric] = value
  result = _parsed(storage.read(folder / 'result.json') or b'')
  if result.get('best_step') == step:
    found['test'] = result['test']
  return found


def _parsed(content: bytes) -> dict[str, Any]:
  """Returns what JSON holds; nothing where it was cut short."""
  try:
    return dict(json.loads(content))
  except ValueError:
    return {}
