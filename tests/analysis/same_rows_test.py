"""Runs that read other fields of the same log, in one report."""

import json

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.analysis import catalogue
from dare_jax.analysis import runner
from dare_jax.analysis import same_rows
from dare_jax.analysis import sources
from dare_jax.evaluation import metrics
from tests import tiny

pytestmark = pytest.mark.slow  # Three trainings.


def _write_with_fields(path, plain):
  """Writes a log that has fields of its items beside its columns."""
  first, *rows = plain.read_text().splitlines()
  lines = [f'{first},brand,size']
  for row in rows:
    item = int(row.split(',')[1][1:])
    lines.append(f'{row},b{item // 10},{item % 3}')
  path.write_text('\n'.join(lines) + '\n')


def _train(root, name, log, **fields):
  config = tiny.config(
    root, data__input=str(root / log), train__steps=2, **fields
  )
  tiny.run(config, root / name)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A run without further fields, one with brand, and one with both."""
  root = tmp_path_factory.mktemp('rows')
  plain = tiny.write_log(root / 'log.csv', num_users=40)
  _write_with_fields(root / 'fields.csv', plain)
  _train(root, 'plain', 'log.csv')
  for name, columns in (('brand', ('brand',)), ('both', ('size', 'brand'))):
    _train(
      root,
      name,
      'fields.csv',
      data__data_dir=str(root / f'data_{name}'),
      data__columns__fields=columns,
      model__name='dare_match_mean',
    )
  return root


def _locate(root, *names):
  return sources.locate([str(root / name) for name in names])


def test_each_run_scores_as_its_own_evaluation(root):
  found = _locate(root, 'plain', 'both', 'brand')
  assert same_rows.widest(found.all) == 1
  assert {*found.store.fields} == {'item', 'category', 'brand', 'size'}
  for source in found.all:
    own = metrics.load(root / source.label / 'predictions_test.npz')
    np.testing.assert_allclose(
      np.sort(found.predictions(source).logit), np.sort(own.logit), rtol=1e-4
    )


def test_all_analyses_are_made(root):
  path = runner.run(
    _locate(root, 'plain', 'both'),
    catalogue.choose([]),
    root / 'report',
    lambda _: None,
  )
  assert path.is_file()
  data = json.loads((root / 'report' / 'projector.json').read_text())['data']
  made = {(t['run'], t['table'].split('_')[0]) for t in data['tables']}
  fields = {run: {f for r, f in made if r == run} for run in ('plain', 'both')}
  assert fields['both'] - fields['plain'] == {'brand', 'size'}


def test_fields_that_no_run_has_all_of_are_refused(root):
  """Not even by the run with the most."""
  _train(
    root,
    'size',
    'fields.csv',
    data__data_dir=str(root / 'data_size'),
    data__columns__fields=('size',),
  )
  with pytest.raises(errors.UsageError, match='reads size, which .*brand does'):
    _locate(root, 'brand', 'size')
  assert same_rows.widest(_locate(root, 'brand', 'size', 'both').all) == 2


def test_another_log_is_refused(root):
  rows = (root / 'log.csv').read_text().splitlines()
  (root / 'other.csv').write_text('\n'.join([*rows, 'u0,i0,c0,29', '']))
  _train(root, 'other', 'other.csv', data__data_dir=str(root / 'data_other'))
  with pytest.raises(errors.UsageError, match='trained on different data'):
    _locate(root, 'both', 'other')
