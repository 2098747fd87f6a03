"""The house's limits of size: files, functions, signatures, folders."""

import ast
import pathlib

_ROOT = pathlib.Path(__file__).parents[1]
_SOURCE = ('dare_jax', 'configs')
_FILE, _FUNCTION, _SIGNATURE, _FOLDER = 400, 70, 8, 2500


def _files(*folders):
  """Returns path, as the project names it -> text."""
  return {
    path.relative_to(_ROOT): path.read_text()
    for folder in folders
    for path in (_ROOT / folder).rglob('*.py')
  }


def _functions():
  """Yields where a function is, and its node."""
  for path, text in _files(*_SOURCE, 'tests').items():
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield f'{path}:{node.lineno} {node.name}', node


def test_files():
  files = _files(*_SOURCE, 'tests')
  assert len(files) > 500
  lines = {str(path): text.count('\n') for path, text in files.items()}
  assert {p: n for p, n in lines.items() if n > _FILE} == {}


def test_folders_of_the_source():
  folders = {}
  for path, text in _files(*_SOURCE).items():
    folder = str(path.parent)
    folders[folder] = folders.get(folder, 0) + text.count('\n')
  assert {f: n for f, n in folders.items() if n > _FOLDER} == {}


def test_functions():
  lines = {
    where: node.end_lineno - node.lineno + 1 for where, node in _functions()
  }
  assert {where: n for where, n in lines.items() if n > _FUNCTION} == {}


def test_signatures():
  """Whatever a function is called with beside its object."""
  counts = {}
  for where, node in _functions():
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
    own = names[:1] in (['self'], ['cls'])
    counts[where] = len(names) - own + len(node.args.kwonlyargs)
  assert {where: n for where, n in counts.items() if n > _SIGNATURE} == {}
