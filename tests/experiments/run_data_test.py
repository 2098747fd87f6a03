"""Runs are read from any folder, and after they were moved."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from dare_jax import errors
from dare_jax import evaluate
from dare_jax import trained
from dare_jax.experiments import run_data
from tests import tiny

pytestmark = pytest.mark.slow

# Letters that mean something to patterns, to URLs and to command lines.
_NAME = '-a [1]*? %41#é'


def _config(**fields):
  made = tiny.config(
    pathlib.Path(),
    **{'train__steps': 2, 'eval__every_steps': 0, **fields},
  )
  made.runtime.compilation_cache = ''
  return made


@pytest.fixture(scope='module')
def trained_there(tmp_path_factory):
  """A folder with a log, its data and a run, all of them given as relative."""
  root = tmp_path_factory.mktemp(_NAME)
  tiny.write_log(root / 'log.csv', num_users=30)
  before = os.getcwd()
  os.chdir(root)
  try:
    config = _config()
    assert (config.data.input, config.data.data_dir) == ('log.csv', 'data')
    tiny.run(config, pathlib.Path('run'))
  finally:
    os.chdir(before)
  return root


@pytest.fixture
def root(trained_there, tmp_path, monkeypatch):
  """A copy of that folder, moved; the working folder is another one."""
  root = tmp_path / 'moved'
  shutil.copytree(trained_there, root)
  kept = trained_there.with_name('kept')
  trained_there.rename(kept)
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  monkeypatch.chdir(elsewhere)
  yield root
  kept.rename(trained_there)


def _is_empty(folder='.'):
  return os.listdir(folder) == []


def test_config_json_has_paths_as_given_and_absolute(trained_there):
  saved = json.loads((trained_there / 'run' / 'config.json').read_text())
  assert saved['data.data_dir'] == 'data'
  assert saved['absolute_paths'] == {
    'workdir': str(trained_there / 'run'),
    'data.data_dir': str(trained_there / 'data'),
    'data.input': str(trained_there / 'log.csv'),
  }
  assert run_data.without_paths(saved)['data.input'] == 'log.csv'
  assert 'absolute_paths' not in run_data.without_paths(saved)


def test_is_read_from_another_folder(trained_there, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  run = trained.load(os.path.relpath(trained_there / 'run'))
  assert run.step == 2
  assert run.ids('item', ['i1'])[0] > 1
  evaluate.evaluate(trained_there / 'run')
  assert _is_empty()


def test_is_read_where_it_was_moved_to_with_its_data(root):
  assert trained.load(root / 'run').step == 2
  assert _is_empty()


def test_data_that_is_gone_is_told_and_not_prepared(root):
  (root / 'data').rename(root / 'lost')
  for read in (trained.load, evaluate.evaluate):
    with pytest.raises(errors.UsageError) as told:
      read(root / 'run')
    assert 'the data that the run was trained on is not in' in str(told.value)
    assert str(root / 'data' / 'csv_log-') in str(told.value)
  assert _is_empty()
  assert not (root / 'data').exists()


def test_a_run_goes_on_from_another_folder(root):
  """The same flags; what they lead to from here is not prepared."""
  result = tiny.run(_config(train__steps=3), root / 'run')
  assert result['resumed_from'] == [2]
  assert not os.path.exists('data')
  # And with its paths given in another way, the data elsewhere.
  (root / 'data').rename(root / 'lost')
  config = _config(train__steps=4)
  config.data.data_dir = str(root / 'lost')
  assert tiny.run(config, root / 'run')['resumed_from'] == [2, 3]
  assert trained.load(root / 'run', 'last').step == 4
  assert _is_empty()


def test_another_run_starts_from_it_in_another_folder(root):
  config = _config(train__steps=0)
  config.train.init_from = str(root / 'run')
  config.data.data_dir = str(root / 'data')
  config.data.input = str(root / 'log.csv')
  tiny.run(config, root / 'next')
  states = [
    trained.load(root / name, 'last').variables for name in ('run', 'next')
  ]
  for name, table in states[0]['tables']['encoder'].items():
    np.testing.assert_array_equal(table, states[1]['tables']['encoder'][name])


def test_another_log_is_still_refused(root):
  config = _config(train__steps=3)
  tiny.write_log(pathlib.Path('other.csv'), num_users=30)
  config.data.input = 'other.csv'
  with pytest.raises(errors.UsageError, match='data.input=other.csv, but'):
    tiny.run(config, root / 'run')
