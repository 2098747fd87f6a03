"""Makes what a report needs, unless it is there already.

`DIR/FIGURE.json` holds the numbers of a figure and a fingerprint of what they
were made from: the analysis's code, the runs' configs, checkpoints and data.
`DIR/made.json` says which figures an analysis had for this log.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import hashlib
import inspect
import json
import math
import pathlib
import types
from typing import Any

from dare_jax import storage
from dare_jax.analysis import source as source_lib
from dare_jax.analysis import sources as sources_lib
from dare_jax.analysis.drawing import figure as figure_lib
from dare_jax.analysis.drawing import panels
from dare_jax.analysis.drawing import report

_MADE = 'made.json'
Shown = list[tuple[figure_lib.Figure, Any]]


def run(
  sources: sources_lib.Sources,
  analyses: Sequence[figure_lib.Analysis],
  output: pathlib.Path,
  tell: Callable[[str], None],
) -> pathlib.Path:
  """Makes the report of some analyses; returns its path.

  Args:
    sources: the runs that are analyzed.
    analyses: the analyses to make.
    output: the folder of the report.
    tell: prints a line of progress.

  Raises:
    UsageError: a run cannot be read, an analysis is not for it, or the folder
      cannot be written.
  """
  storage.make_folder(storage.locate(output))
  made = _read_json(output / _MADE) or {}
  shown: Shown = []
  for number, analysis in enumerate(analyses):
    place = f'[{number + 1}/{len(analyses)}] {analysis.name}'
    key = fingerprint(analysis, sources)
    data = _kept(output, made.get(analysis.name), key)
    if data is None:
      tell(f'{place}: starts')
      told = lambda text, place=place: tell(f'{place}: {text}')
      data = dict(analysis.measure(sources, told, output))
      for name, values in data.items():
        content = {'fingerprint': key, 'data': _plain(values)}
        _write_json(output / f'{name}.json', content)
      made[analysis.name] = {'fingerprint': key, 'figures': [*data]}
      _write_json(output / _MADE, made)
      data = _kept(output, made[analysis.name], key) or {}
    else:
      tell(f'{place}: nothing has changed')
    shown += [(f, data[f.name]) for f in analysis.figures if f.name in data]
  path = output / 'report.html'
  drawn = _digest(
    [[f.name, data] for f, data in shown], *_code([panels, report]),
    *_code(_modules_of(shown)), _identities(sources),
  )  # fmt: skip
  pictures = [output / f'{f.name}.png' for f, d in shown if f.panels(d)]
  is_there = all(file.is_file() for file in (*pictures, path))
  if made.get('report') == drawn and is_there:
    return path
  _draw(sources, shown, output, tell)
  made['report'] = drawn
  _write_json(output / _MADE, made)
  return path


def fingerprint(
  analysis: figure_lib.Analysis, sources: sources_lib.Sources
) -> str:
  """Returns what tells the numbers of an analysis from any others."""
  files = [
    hashlib.sha256(source.read(name) or b'').hexdigest()
    for source in sources.all
    for name in analysis.files
  ]
  code = _code([source_lib, *analysis.modules])
  return _digest(analysis.name, *code, _identities(sources), *files)


def _draw(
  sources: sources_lib.Sources,
  shown: Shown,
  output: pathlib.Path,
  tell: Callable[[str], None],
) -> None:
  tell('drawing')
  sections = []
  for figure, data in shown:
    made = figure.panels(data)
    if made:
      file = storage.locate(output / f'{figure.name}.png')
      storage.write(file, panels.png(made))
    sections.append(
      report.Section(
        figure.name,
        figure.title,
        figure.sentence(data),
        [panels.svg(panel) for panel in made],
        figure.tables(data),
      )
    )
  page = report.page(sources.all, sections)
  storage.write(storage.locate(output / 'report.html'), page.encode())


def _kept(
  output: pathlib.Path, made: dict[str, Any] | None, key: str
) -> dict[str, Any] | None:
  """Returns the data of figures that are there; None if any is not."""
  if made is None or made.get('fingerprint') != key:
    return None
  data = {}
  for name in made['figures']:
    content = _read_json(output / f'{name}.json')
    if content is None or content.get('fingerprint') != key:
      return None
    data[name] = content['data']
    files = [output / file for file in content['data'].get('files', ())]
    if not all(file.is_file() for file in files):
      return None
  return data


def _modules_of(shown: Shown) -> list[types.ModuleType]:
  found = (inspect.getmodule(figure.sentence) for figure, _ in shown)
  unique = {m.__name__: m for m in found if m is not None}
  return [unique[name] for name in sorted(unique)]


def _code(modules: Sequence[types.ModuleType]) -> list[str]:
  return [inspect.getsource(module) for module in modules]


def _identities(sources: sources_lib.Sources) -> list[Any]:
  return [[source.label, source.identity] for source in sources.all]


def _digest(*parts: Any) -> str:
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(values: Any) -> Any:
  """Returns values as JSON has them; None for NaN and infinity."""
  if isinstance(values, dict):
    return {str(key): _plain(value) for key, value in values.items()}
  if isinstance(values, list | tuple):
    return [_plain(value) for value in values]
  if isinstance(values, float) and not math.isfinite(values):
    return None
  return values


def _read_json(path: pathlib.Path) -> Any:
  content = storage.read(storage.locate(path))
  try:
    return None if content is None else json.loads(content)
  except ValueError:
    return None  # Of a write that was cut short: it is made anew.


def _write_json(path: pathlib.Path, values: Any) -> None:
  content = json.dumps(values, indent=1, ensure_ascii=False)
  storage.write(storage.locate(path), content.encode())
