"""Runs whose running statistics are by steps, and have no count of rows."""

import json

import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import layers
from dare_jax import trained
from dare_jax.experiments import run_config
from tests import tiny

pytestmark = pytest.mark.slow  # A training of each.


@pytest.fixture(scope='module')
def older(tmp_path_factory):
  """A run of a version that had not the field yet."""
  root = tmp_path_factory.mktemp('older')
  tiny.write_log(root / 'log.csv')
  tiny.run(tiny.config(root, model__norm_momentum=0.9), root / 'run')
  path = root / 'run' / 'config.json'
  saved = json.loads(path.read_text())
  del saved['model.norm_momentum']
  path.write_text(json.dumps(saved))
  return root


def counts(run):
  stats = run.variables['batch_stats']
  return [float(head['BatchNorm_0']['count']) for head in stats.values()]


def test_it_is_read_as_it_was_trained(older):
  run = trained.load(older / 'run')
  assert run.model.config.norm_momentum == 0.9
  stats = run.variables['batch_stats']['head']['BatchNorm_0']
  assert set(stats) == {'mean', 'var'}


def test_it_goes_on_with_the_flag_alone(older):
  path = older / 'run' / 'config.json'
  told = 'model.norm_momentum=None, but the run .* model.norm_momentum=0.9'
  with pytest.raises(errors.UsageError, match=told):
    run_config.check_same_run(tiny.config(older), path)
  given = tiny.config(older, model__norm_momentum=0.9)
  run_config.check_same_run(given, path)


@pytest.mark.parametrize(
  'momentum', [None, pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_another_run_starts_from_it(older, tmp_path, momentum):
  fields = {'train__init_from': str(older / 'run'), 'train__steps': 1}
  config = tiny.config(older, model__norm_momentum=momentum, **fields)
  tiny.run(config, tmp_path / 'run')
  run = trained.load(tmp_path / 'run', 'last')
  if momentum is None:
    assert counts(run) == [layers.ENOUGH] * 2
  old = trained.load(older / 'run').variables['batch_stats']
  new = run.variables['batch_stats']
  for head in old:
    one, other = (x[head]['BatchNorm_0']['mean'] for x in (old, new))
    # One step of few rows has moved them, but little, or by a tenth.
    assert np.abs(one - other).max() < 0.2 * np.abs(one).max() + 0.05


def test_by_steps_starts_from_by_rows(older, tmp_path):
  tiny.run(tiny.config(older), tmp_path / 'rows')
  assert min(counts(trained.load(tmp_path / 'rows', 'last'))) > 0
  fields = {'train__init_from': str(tmp_path / 'rows'), 'train__steps': 1}
  config = tiny.config(older, model__norm_momentum=0.9, **fields)
  tiny.run(config, tmp_path / 'steps')
  run = trained.load(tmp_path / 'steps', 'last')
  names = {
    path[-1].key
    for path, _ in jax.tree.leaves_with_path(run.variables['batch_stats'])
  }
  assert names == {'mean', 'var'}
