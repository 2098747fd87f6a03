"""A bundle made under this Python and JAX, opened under others.

    python -m tests.bundle.across --python=python3.12

Makes a bundle here. In a fresh environment of the other interpreter, with the
newest JAX that it allows, the bundle has to give the same numbers, by
`dare_jax.bundle` and by the lines of its README.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from dare_jax import bundle
from tests import tiny
from tests.bundle import served

ROOT = pathlib.Path(__file__).parents[2]
NEEDED = ('jax', 'numpy', 'flatbuffers')
_THERE = """
import json, re, sys
import jax
from dare_jax import bundle

opened = bundle.open(sys.argv[1])
asked = json.load(open(sys.argv[2]))
ids = lambda raw: {f: opened.ids(f, values) for f, values in raw.items()}
found = opened.score(
  [ids(raw) for raw in asked['histories']],
  [ids(raw) for raw in asked['candidates']],
  explain=True,
)
state = opened.encode(ids(asked['histories'][0]))
state = opened.append(state, {field: 2 for field in opened.fields})
found += opened.score([state], [ids(asked['candidates'][0])], explain=True)
about = open(sys.argv[1] + '/README.md').read()
exec(re.search(r'```python\\n(.*?)```', about, re.S)[1], {})
versions = {'jax': jax.__version__, 'python': sys.version.split()[0]}
names = ('logit', 'weight', 'distance')
scores = [{n: getattr(one, n).tolist() for n in names} for one in found]
print('\\n' + json.dumps({'versions': versions, 'scores': scores}))
"""


def environment(python: str, folder: pathlib.Path) -> str:
  """Returns an interpreter with what a bundle needs, in a fresh environment.

  Args:
    python: another interpreter.
    folder: of the environment.
  """
  subprocess.run([python, '-m', 'venv', str(folder)], check=True)
  own = str(folder / 'bin' / 'python')
  subprocess.run([own, '-m', 'pip', 'install', '-q', *NEEDED], check=True)
  return own


def check(python: str, folder: pathlib.Path) -> dict[str, Any]:
  """Checks that another interpreter scores as this one; returns its versions.

  Args:
    python: an interpreter with `NEEDED`.
    folder: for a run and its bundle.
  """
  tiny.write_log(folder / 'log.csv')
  served.train(folder, folder / 'run')
  served.export(folder / 'run', folder / 'bundle')
  return check_bundle(python, folder / 'bundle', folder)


def check_bundle(
  python: str, path: pathlib.Path, folder: pathlib.Path
) -> dict[str, Any]:
  """The same for a bundle that is there; `folder` takes what is asked."""
  opened = bundle.open(path)
  rng = np.random.default_rng(0)
  asked = {
    'histories': [served.raw(rng, n) for n in (4, 0, 20, 31)],
    'candidates': [served.raw(rng, n) for n in (1, 4, 9, 3)],
  }
  (folder / 'asked.json').write_text(json.dumps(asked))
  arguments = ['-c', _THERE, str(path), str(folder / 'asked.json')]
  done = subprocess.run(
    [python, *arguments], cwd=ROOT, check=False, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  told = json.loads(done.stdout.splitlines()[-1])
  _compare(opened, asked, told['scores'])
  return told['versions']


def _compare(
  opened: bundle.Bundle, asked: dict[str, Any], found: Sequence[dict[str, Any]]
) -> None:
  histories, candidates = (
    [served.ids(opened, raw) for raw in asked[name]]
    for name in ('histories', 'candidates')
  )
  expected = opened.score(histories, candidates, explain=True)
  state = opened.append(
    opened.encode(histories[0]), dict.fromkeys(opened.fields, 2)
  )
  expected += opened.score([state], candidates[:1], explain=True)
  for one, other in zip(expected, found, strict=True):
    logits = np.asarray(other['logit'], np.float32)
    served.assert_close(one.logit, logits.reshape(one.logit.shape))
    np.testing.assert_array_equal(
      one.distance, np.reshape(other['distance'], one.distance.shape)
    )
    np.testing.assert_allclose(
      one.weight, np.reshape(other['weight'], one.weight.shape), atol=1e-6
    )


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--python', required=True, help='another interpreter')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    there = check(environment(args.python, folder / 'other'), folder)
  import jax

  print(
    f'a bundle of jax {jax.__version__} on Python {sys.version.split()[0]}'
    f' scores the same with jax {there["jax"]} on Python {there["python"]}'
  )


if __name__ == '__main__':
  main()
