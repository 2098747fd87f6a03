"""The list of files for TensorBoard's projector, from its JSON alone."""

from __future__ import annotations

from typing import Any

from dare_jax.analysis.drawing import figure

Data = dict[str, Any]


def _sentence(data: Data) -> str:
  folders = list(dict.fromkeys(of['folder'] for of in data['tables']))
  return (
    f'{len(data["tables"])} tables lie beside this report, with names of the'
    f' log, the most frequent ids first. To see the first run:'
    f' tensorboard --logdir={folders[0]}, in the folder of this report.'
  )


def _tables(data: Data) -> list[figure.Table]:
  rows = [
    [
      of['run'], of['table'], f'{of["rows"]:,}', str(of['dims']), of['folder'],
    ]
    for of in data['tables']
  ]  # fmt: skip
  columns = ['run', 'table', 'rows', 'dims', 'folder']
  return [figure.Table('Embeddings for the projector', columns, rows)]


FIGURES = (
  figure.Figure(
    'projector',
    "Embeddings for TensorBoard's projector",
    _sentence,
    figure.nothing,
    _tables,
  ),
)
