"""Fields of a user: trained as context, and known where nobody gives them."""

import numpy as np
import polars as pl
import pytest

from dare_jax import bundle
from dare_jax import errors
from dare_jax import predict
from dare_jax import trained
from dare_jax.bundle import reading
from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from tests import tiny
from tests.bundle import served
from tests.prediction import cases

pytestmark = pytest.mark.slow  # A training, its bundle and a server.

_FIELDS = {
  'data__columns__user_fields': ('age', 'user_id'),
  'data__columns__numbers': ('age',),
}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A log in which the age of some users is another on their last day."""
  folder = tmp_path_factory.mktemp('users')
  tiny.write_log(folder / 'log.csv')
  log = pl.read_csv(folder / 'log.csv')
  user = log['user_id'].str.slice(1).cast(pl.Int64).to_numpy()
  is_last = log['timestamp'].to_numpy() == 29
  age = 2 ** (user % 5) + 40 * (is_last & (user % 7 == 0))
  log.with_columns(age=pl.Series(age)).write_csv(folder / 'log.csv')
  served.train(folder, folder / 'run', **_FIELDS)
  return folder


@pytest.fixture(scope='module')
def run(root):
  return trained.load(root / 'run')


@pytest.fixture(scope='module')
def opened(root):
  served.export(root / 'run', root / 'bundle', shapes='1x4')
  return bundle.open(root / 'bundle')


def test_the_last_value_of_a_user_is_known(run):
  store = run.experiment.store
  assert store.context_fields == store.user_fields == ('age', 'user_id')
  found = run.of_user('u0'), run.of_user('u1'), run.of_user('nobody')
  assert [one['age'] for one in found] == [
    *run.ids('age', [41, 2]).tolist(),
    1,
  ]
  assert [one['user_id'] for one in found] == [
    *run.ids('user_id', ['u0', 'u1']).tolist(),
    1,
  ]


def test_scores_of_a_user(run):
  past = {'item': ['i5'], 'category': ['c5']}
  logits = [
    run.score(past, past, **more)[0]
    for more in (
      {'user': 'u1'},
      {'context': {'age': 2, 'user_id': 'u1'}},
      {'context': {'age': 2}, 'user': 'u1'},
      {'user': 'u2'},
      {},
      {'context': {'age': None, 'user_id': None}},
    )
  ]
  assert logits[0] == logits[1] == logits[2] != logits[3]
  assert logits[4] == logits[5] != logits[0]


def _bulk(folder, rows, name, **request):
  rows.write_csv(folder / f'{name}_in.csv')
  out = str(folder / f'{name}_out.csv')
  predict.predict(
    predict.Request(str(folder / f'{name}_in.csv'), out, **request)
  )
  return pl.read_csv(out)['logit'].to_numpy()


def test_bulk_scores_need_no_fields_of_users(root, run, opened, tmp_path):
  frame, _ = cases.rows(root / 'run')
  same = frame.filter(pl.col('user_id').str.slice(1).cast(pl.Int64) % 7 != 0)
  same = same.head(40)
  by_run = {'workdir': str(root / 'run')}
  given = _bulk(tmp_path, same, 'given', **by_run)
  left_out = _bulk(tmp_path, same.drop('age'), 'left_out', **by_run)
  np.testing.assert_allclose(left_out, given, rtol=1e-6, atol=1e-6)
  found = _bulk(
    tmp_path,
    same.drop('age'),
    'bundle',
    bundle=str(root / 'bundle'),
    history=str(root / 'log.csv'),
    data_dir=str(tmp_path / 'data'),
  )
  np.testing.assert_allclose(found, given, rtol=1e-6, atol=1e-6)


def test_a_bundle_knows_the_users_of_the_log(run, opened):
  assert isinstance(opened, reading.Bundle)
  assert opened.user_fields == ('age', 'user_id')
  users = ['u0', 'u1', 'nobody', None]
  for field in opened.user_fields:
    expected = [run.of_user(user)[field] for user in users]
    assert opened.of_users(field, users).tolist() == expected


def test_a_log_without_the_column_is_refused(root, tmp_path, capsys):
  made = tiny.config(root, data__columns__user_fields=('income',))
  made.data.data_dir = str(tmp_path)
  data = log_options.of_section(made.data)
  text = tiny.refusal(lambda: datasets.prepare(data), capsys)
  assert "no column 'income'" in text
  with pytest.raises(errors.UsageError, match='data.user_fields='):
    datasets.prepare(
      log_options.LogOptions(
        'complete_journey', str(tmp_path), user_fields=('shoe_size',)
      )
    )
