"""The check of a device: on this CPU, in small, without much installed."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.configs import base
from dare_jax.device_check import kernels
from dare_jax.device_check import made
from dare_jax.device_check import parts
from dare_jax.device_check import reporting
from dare_jax.device_check import table
from dare_jax.experiments import model_section
from dare_jax.serving import user_state
from dare_jax.training import options as train_options

_ROOT = pathlib.Path(__file__).parents[2]
# What a machine with an accelerator may lack. Orbax itself needs etils.
_REFUSED = (
  *('polars', 'tensorflow_datasets', 'ml_collections', 'array_record'),
  *('tensorboardX', 'tqdm', 'jaxtyping', 'beartype', 'importlib_resources'),
)
_HOOK = """
import os, sys
class Refuse:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in os.environ['REFUSED'].split(','):
      raise ModuleNotFoundError(f'{name} is refused', name=name)
sys.meta_path.insert(0, Refuse())
"""


def _lacking(folder: pathlib.Path, *refused: str) -> dict[str, str]:
  """Returns an environment whose Pythons cannot import some packages."""
  (folder / 'sitecustomize.py').write_text(_HOOK)
  path = os.pathsep.join([str(folder), str(_ROOT)])
  return os.environ | {'PYTHONPATH': path, 'REFUSED': ','.join(refused)}


def test_all_is_imported_without_what_may_be_missing(tmp_path):
  names = ('__main__', *parts.SECONDS, 'parts', 'table')
  code = f"""
from dare_jax.device_check import stand_in
stand_in.for_annotations()
import importlib
for name in {names}:
  importlib.import_module('dare_jax.device_check.' + name)
import polars
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=_lacking(tmp_path, *_REFUSED, 'etils'),
    capture_output=True,
    text=True,
    check=False,
  )
  # All went well up to the last line.
  assert done.stderr.splitlines()[-1].endswith('polars is refused'), done.stderr


@pytest.mark.slow
def test_the_whole_check_in_small(tmp_path):
  done = subprocess.run(
    ['bash', _ROOT / 'launch' / 'device_check.sh', tmp_path / 'out', '--small'],
    env=_lacking(tmp_path, *_REFUSED)
    | {
      'PYTHON': sys.executable,
      # Parts that compile the same do so once.
      'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  report = json.loads((tmp_path / 'out' / 'device_check.json').read_text())
  assert [part['status'] for part in report['parts']] == ['done'] * 7
  tested = {row['case']: row['passed'] for row in report['rows']}
  for case in (
    'a training repeats bit for bit',
    'a checkpoint comes back bit for bit',
    'a behavior appended, int8 keys',
    'losses of 6 steps, highest precision',
  ):
    assert tested[case]
  measured = {row['measure'] for row in report['rows']}
  assert {'recall', 'share_of_copy', 'fed_examples_per_s'} <= measured
  assert {'median_ms', 'copy_gb_per_s'} <= measured
  text = (tmp_path / 'out' / 'device_check.md').read_text()
  assert '### Training (done' in text
  assert 'which fails' not in text
  log = (tmp_path / 'out' / 'device_check.log').read_text()
  assert log.rstrip().endswith('all that is tested holds')


def test_trainers_are_those_of_the_base_config():
  config = base.get_config()
  assert made.OPTIM == config.optim.to_dict()
  train_options.Options(**made.OPTIM)
  vocab = {'item': 500, 'category': made.CATEGORIES}
  for name in ('dare', 'twin', 'din'):
    config.model.name = name
    own = model_section.build(config, vocab, num_clusters=4096).config
    assert made.ranker(name, 500).config == own


def test_a_batch_has_ids_of_its_tables():
  batch = made.batch(3, rows=50, moments=6, length=9)
  for ids in (batch.history.ids, batch.targets.ids):
    assert 2 <= ids['item'].min() and ids['item'].max() < 50
    assert ids['category'].max() < made.CATEGORIES
  clicked = batch.targets.ids['item'][:, 0, 0]
  assert (batch.history.ids['item'] == clicked[:, None]).any(1).all()


@pytest.fixture
def report(tmp_path):
  return reporting.Report(tmp_path / 'rows', 'answers', time.time() + 50)


def test_a_case_that_fails_is_told_and_the_others_go_on(report):
  with report.case('first'):
    raise ValueError('broken\nand more')
  report.add('second', 'losses', 0.5, passed=True)
  first, second = report.rows()
  assert (first['passed'], first['note']) == (False, 'ValueError: broken')
  assert second['passed']
  assert report.value('losses') == 0.5
  ended = parts.Ended('answers', 'failed', 1.0, 'first')
  shown = table.show([ended], report.rows())
  assert '- first, error: ValueError: broken' in shown
  assert '| second | 0.5 |' in shown


def test_what_has_no_time_left_is_told(report):
  assert report.has_time('short', 10)
  assert not report.has_time('long', 100)
  (row,) = report.rows()
  assert row['case'] == 'long' and row['measure'] == 'skipped'


def test_a_row_that_was_cut_is_left_out(tmp_path):
  path = tmp_path / 'rows'
  path.write_text('{"part": "a"}\n{"part": ')
  assert reporting.read(path) == [{'part': 'a'}]


@pytest.mark.parametrize(
  ('program', 'minutes', 'status'),
  [
    ('import sys; sys.exit(3)', 9, 'failed'),
    ('import os; os.abort()', 9, 'failed'),
    ('import time; time.sleep(60)', 0.001, 'out of time'),
  ],
)
def test_a_part_that_dies_or_hangs(
  tmp_path, monkeypatch, program, minutes, status
):
  monkeypatch.setattr(parts, '_GRACE', 0.1)
  command = lambda given: [sys.executable, '-c', program]
  monkeypatch.setattr(parts, '_command', command)
  told = []
  ended = parts.run(
    ['machine', 'peer'],
    minutes,
    True,
    None,
    tmp_path / 'rows',
    lambda ended: told.append(len(ended)),
  )
  assert [end.status for end in ended] == [status] * 2
  assert told == [1, 2]


def test_a_search_that_finds_others_is_seen():
  rng = np.random.default_rng(0)
  keys = jnp.asarray(rng.standard_normal((2, 40, 4), np.float32))
  query = jnp.asarray(rng.standard_normal((2, 3, 4), np.float32))
  state = user_state.build(keys, jnp.ones((2, 40), bool))
  bias = jnp.zeros(state.capacity + 1)
  found = user_state.search(state, query, bias, 5)
  recall, apart = kernels.compare(found, keys, query, bias)
  assert recall == 1 and apart < 1e-5
  recall, apart = kernels.compare(found, keys, -query, bias)
  assert recall < 0.8 and apart > 0.1


def test_unknown_parts_are_refused():
  done = subprocess.run(
    [sys.executable, '-m', 'dare_jax.device_check', '--parts=kernels,x'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.startswith('error: --parts=x: expected some of machine')
