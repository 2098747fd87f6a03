"""Runs that are refused, that diverge, and one that learns."""

import json
import math
import pathlib
import shutil

import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import evaluate
from dare_jax.logs import options as log_options
from dare_jax.runs import run as run_lib
from dare_jax.runs import workdir as workdir_lib
from dare_jax.store import datasets
from tests import tiny


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  """A folder with the log and prepared data."""
  folder = tmp_path_factory.mktemp('tiny')
  tiny.write_log(folder / 'log.csv')
  return folder


@pytest.fixture(scope='module')
def straight(root):
  """An undisturbed run of 8 steps, and what it returned."""
  workdir = root / 'straight'
  return workdir, tiny.run(tiny.config(root), workdir)


def test_another_config_is_refused(root, straight):
  made = tiny.config(root, optim__learning_rate=0.5)
  with pytest.raises(errors.UsageError, match='optim.learning_rate=0.5, but'):
    tiny.run(made, straight[0])
  saved = json.loads((straight[0] / 'config.json').read_text())
  assert saved['optim.learning_rate'] == 0.01


def test_a_workdir_that_a_process_does_not_see_is_refused(
  root, tmp_path, monkeypatch
):
  """It would wait for files of process 0, and that for its own, for ever."""
  monkeypatch.setattr(run_lib.processes, 'is_first', lambda: False)
  monkeypatch.setattr(workdir_lib, '_SEEN_SECONDS', 0.0)
  with pytest.raises(errors.UsageError, match='workdir that all processes see'):
    tiny.run(tiny.config(root), tmp_path)


def test_checkpoints_of_other_data_are_refused(
  root, straight, tmp_path, capsys
):
  """The config is the same, but the log behind it has changed."""
  shutil.copytree(straight[0], tmp_path / 'run')
  (tmp_path / 'run' / 'result.json').unlink()
  tiny.write_log(tmp_path / 'log.csv', num_users=50)
  changed = datasets.prepare(log_options.of_section(tiny.config(tmp_path).data))
  made = tiny.config(root)
  store = datasets.store_path(log_options.of_section(made.data))
  kept = store.rename(store.with_name('kept'))
  try:
    shutil.copytree(changed.path, store)
    line = tiny.refusal(lambda: tiny.run(made, tmp_path / 'run'), capsys)
  finally:
    shutil.rmtree(store)
    kept.rename(store)
  assert 'was trained on data with the fingerprint' in line
  assert f', made from {root / "log.csv"}, but' in line
  assert str(tmp_path / 'run' / 'checkpoints') in line


@pytest.mark.slow
def test_a_run_that_has_begun_goes_on_when_its_log_grows(tmp_path):
  """Its checkpoints know their data; a new run would be refused."""
  log = tiny.write_log(tmp_path / 'log.csv', num_users=40)
  made, run = tiny.config(tmp_path), tmp_path / 'run'
  with pytest.raises(errors.Stopped):
    tiny.run(made, run, tiny.StopAtCheck(5))
  with log.open('a') as file:
    file.write('u1,i1,c1,99\n')
  assert tiny.run(made, run)['resumed_from']
  evaluate.evaluate(run)
  with pytest.raises(errors.UsageError, match='has changed since'):
    tiny.run(made, tmp_path / 'new')


def test_a_diverging_loss_stops_with_the_window(root, tmp_path, capsys):
  made = tiny.config(
    root,
    optim__learning_rate=1e20,
    train__log_every_steps=2,
    checkpoint__every_steps=1,
  )
  line = tiny.refusal(lambda: tiny.run(made, tmp_path), capsys)
  assert 'not finite somewhere in steps 2 to 2.' in line
  assert 'The checkpoint of step 1 in' in line and 'is sound' in line
  assert 'optim.learning_rate=1e+20' in line
  assert f'--config.train.init_from={tmp_path} and another --workdir' in line
  state, _ = tiny.restore(made, tmp_path)
  assert int(state.step) == 1
  leaves = jax.tree.leaves((state.params, state.tables))
  assert all(np.isfinite(leaf).all() for leaf in leaves)
  assert not (tmp_path / 'result.json').exists()


@pytest.mark.slow
def test_a_diverging_loss_between_logs(root, tmp_path):
  made = tiny.config(
    root,
    optim__learning_rate=1e20,
    train__log_every_steps=3,
    checkpoint__every_steps=0,
  )
  with pytest.raises(errors.UsageError, match='steps 1 to 3. .* again in this'):
    tiny.run(made, tmp_path)
  made.optim.learning_rate = 0.01  # As that says: in this workdir.
  assert tiny.run(made, tmp_path)['steps'] == 8


@pytest.mark.slow
def test_beats_a_constant_predictor(root, tmp_path):
  made = tiny.config(
    root, train__steps=80, eval__every_steps=40, train__log_every_steps=40
  )
  test = tiny.run(made, tmp_path)['test']
  # One positive, two negatives: the best constant says 1/3 each time.
  constant = -(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3
  assert test['logloss'] < constant - 0.05
  assert test['auc'] > 0.7
  assert test['accuracy'] > 2 / 3
