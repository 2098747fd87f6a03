"""Runs of a model with real time, from a log with dates on."""

import datetime

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import trained
from dare_jax.bundle.making import exporting
from dare_jax.prediction import run_scorer
from tests import tiny

FIELDS = {
  'model__real_time': ('gap', 'weekday', 'hour'),
  'model__match_fields': ('item',),
  'train__moments_per_window': 2,
}


def write_log(path):
  """As `tiny.write_log`, with a date for each time, some hours apart."""
  lines = tiny.write_log(path).read_text().splitlines()
  first = datetime.datetime(2024, 5, 1, 7, 30)
  rows = [lines[0]]
  for line in lines[1:]:
    rest, time = line.rsplit(',', 1)
    moment = first + datetime.timedelta(hours=37 * int(time))
    rows.append(f'{rest},{moment.isoformat()}')
  path.write_text('\n'.join(rows) + '\n')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('real_time')
  write_log(root / 'log.csv')
  tiny.run(tiny.config(root, **FIELDS), root / 'run')
  return root


@pytest.fixture(scope='module')
def run(root):
  return trained.load(root / 'run')


def test_learns_of_times(run):
  own = run.variables['params']['real_time']
  for name in ('gap_bias', 'phase_bias', 'gap_vectors', 'phase_vectors'):
    assert np.abs(own[name]).max() > 0, name
  moved = next(run.experiment.pipelines['test'].eval_batches(9)).batch
  moved = jax.tree.map(jnp.asarray, moved)
  before = run.model.apply(run.variables, moved).logits
  moved = moved.replace(now=moved.now + 5 * 86_400)
  assert np.abs(run.model.apply(run.variables, moved).logits - before).max() > 0


def test_a_log_without_dates_is_refused(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  config = tiny.config(tmp_path, model__real_time=('gap',))
  with pytest.raises(errors.UsageError, match='the times of the log count'):
    tiny.run(config, tmp_path / 'run')


def test_what_tells_no_times_is_refused(root, run, tmp_path):
  for use in (
    lambda: exporting.export(root / 'run', tmp_path / 'bundle'),
    lambda: run_scorer.RunScorer(run),
    lambda: run.score({}, {}),
  ):
    with pytest.raises(errors.UsageError, match='model.real_time=gap,weekday'):
      use()
