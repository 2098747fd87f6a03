"""Embeddings of runs for TensorBoard's projector, with names of the log.

    tensorboard --logdir=OUTPUT/projector/RUN

A table of item or category vectors has a file of vectors, the most frequent
ids of the log first, and one of names; time has none, nor have ids that the
run does not know.
"""

from __future__ import annotations

from collections.abc import Callable
import io
import json
import pathlib
from typing import Any

import numpy as np

from dare_jax import storage
from dare_jax.analysis import source as source_lib
from dare_jax.analysis import sources as sources_lib
from dare_jax.logs import id_map

MOST_ROWS = 10_000


def measure(
  sources: sources_lib.Sources,
  tell: Callable[[str], None],
  output: pathlib.Path,
) -> dict[str, Any]:
  """Writes the files; returns which, by the figure that lists them."""
  written: list[dict[str, Any]] = []
  for number, source in enumerate(sources.all):
    tell(f'writing the embeddings of {source.label}')
    folder = pathlib.Path('projector') / f'{number + 1}-{_plain(source.label)}'
    written += write(sources, source, output, folder)
  files = [file for of in written for file in of['files']]
  return {'projector': {'tables': written, 'files': files}}


def write(
  sources: sources_lib.Sources,
  source: source_lib.Source,
  output: pathlib.Path,
  folder: pathlib.Path,
) -> list[dict[str, Any]]:
  """Writes the tables of a run.

  Args:
    sources: all runs of the report.
    source: the run whose tables are written.
    output: the folder of the report.
    folder: the folder of this run's files, within `output`.

  Returns:
    Of each table its name, size, folder and files, relative to `output`.
  """
  specs = source.run.experiment.trainer.tables.specs
  tables = source.run.variables['tables']['encoder']
  storage.make_folder(storage.locate(output / folder))
  made, lines = [], []
  for name, spec in specs.items():
    if spec.field not in sources.store.fields:
      continue
    ids, counts = frequent(sources, source, spec.field)
    vectors = np.asarray(tables[name], np.float32)[ids]
    labels = _labels(sources, spec.field, ids, counts)
    parts = {'tensors': _tsv(vectors), 'metadata': labels}
    files = {part: f'{name}.{part}.tsv' for part in parts}
    for part, content in parts.items():
      file = storage.locate(output / folder / files[part])
      storage.write(file, content.encode())
    lines.append(
      f'embeddings {{\n  tensor_name: {json.dumps(name)}\n'
      f'  tensor_path: {json.dumps(files["tensors"])}\n'
      f'  metadata_path: {json.dumps(files["metadata"])}\n}}\n'
    )
    made.append(
      {
        'run': source.label,
        'table': name,
        'rows': len(ids),
        'dims': int(vectors.shape[1]),
        'folder': str(folder),
        'files': [str(folder / file) for file in files.values()],
      }
    )
  config = storage.locate(output / folder / 'projector_config.pbtxt')
  storage.write(config, ''.join(lines).encode())
  return made


def frequent(
  sources: sources_lib.Sources, source: source_lib.Source, field: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the ids that a run knows, most frequent first, and their counts."""
  size = sources.store.vocab_sizes[field]
  values = sources.store.behaviors.columns[f'{field}_id']
  counts = np.bincount(values, minlength=size)
  every = np.arange(size)
  known = source.run.experiment.as_read(field, every) == every
  known[: id_map.FIRST] = False
  ids = np.flatnonzero(known & (counts > 0))
  ids = ids[np.argsort(-counts[ids], kind='stable')[:MOST_ROWS]]
  return ids, counts[ids]


def _labels(
  sources: sources_lib.Sources,
  field: str,
  ids: np.ndarray,
  counts: np.ndarray,
) -> str:
  """Returns the names of ids, and for an item that of its category."""
  name = sources.raw(field)
  columns = [field, 'events']
  rows = [[name(i), str(count)] for i, count in zip(ids, counts, strict=True)]
  if field == 'item':
    table = sources.store.behaviors.columns
    category = np.zeros(sources.store.vocab_sizes['item'], np.int64)
    category[table['item_id']] = table['category_id']
    of = sources.raw('category')
    columns.append('category')
    for row, i in zip(rows, ids, strict=True):
      row.append(of(category[i]))
  return ''.join('\t'.join(map(_cell, row)) + '\n' for row in (columns, *rows))


def _cell(text: str) -> str:
  """A name may hold what separates names."""
  return ' '.join(text.split()) or '(empty)'


def _tsv(vectors: np.ndarray) -> str:
  text = io.StringIO()
  np.savetxt(text, vectors, fmt='%.6g', delimiter='\t')
  return text.getvalue()


def _plain(label: str) -> str:
  return ''.join(c if c.isalnum() or c in '-_.' else '_' for c in label)
