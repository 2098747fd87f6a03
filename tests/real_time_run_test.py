"""Runs of a model with real time, from a log with dates on."""

import dataclasses
import datetime

import jax
import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax import predict
from dare_jax import trained
from dare_jax.bundle import reading
from dare_jax.bundle.making import exporting
from tests import tiny
from tests.models import examples
from tests.prediction import cases
from tests.server import sites

pytestmark = pytest.mark.slow  # A training, its bundle and a server.

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
  before = examples.predict(run.model, run.variables, moved)
  moved = moved.replace(now=moved.now + 5 * 86_400)
  after = examples.predict(run.model, run.variables, moved)
  assert np.abs(after - before).max() > 0


def test_a_log_without_dates_is_refused(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  config = tiny.config(tmp_path, model__real_time=('gap',))
  with pytest.raises(errors.UsageError, match='the times of the log count'):
    tiny.run(config, tmp_path / 'run')


@pytest.fixture(scope='module')
def bundle(root):
  """Compared with its run as it is made, appended and whole."""
  options = exporting.Options(shapes='1x4')
  exporting.export(root / 'run', root / 'bundle', options)
  return root / 'bundle'


def _moment(run, place):
  """Returns the behaviors that a moment of the test sees, and its date."""
  store, moments = (
    run.experiment.store,
    run.experiment.pipelines['test'].moments,
  )
  columns, begin = store.behaviors.columns, store.behaviors.offsets
  rows = np.arange(begin[int(moments.user[place])], moments.end[place])
  places = np.append(rows, moments.target[place])
  seconds = pl.Series(np.array(columns['timestamp'][places]))
  *times, now = pl.from_epoch(seconds).dt.to_string().to_list()
  past = {
    field: store.raw_ids(field).gather(
      np.array(columns[f'{field}_id'][rows]) - 2
    )
    for field in store.fields
  }
  return pl.DataFrame({**past, 'time': times}).to_dicts(), now


def test_the_server_scores_as_evaluation_did(root, run, bundle):
  """Of kept users, events come one by one, and of given histories."""
  frame, logits = cases.rows(root / 'run')
  size = run.experiment.pipelines['test'].targets_per_row
  site = sites.open_site(reading.open(bundle))
  with site.client:
    for place in range(4):
      mine = slice(place * size, (place + 1) * size)
      targets = frame[mine].select(item='item_id', category='category_id')
      past, now = _moment(run, place)
      asked = {'candidates': targets.to_dicts(), 'time': now}
      url = f'/users/{place}/events'
      site.client.post(url, json=sites.events(past[:-1])).raise_for_status()
      body = {'user_id': place, **asked}
      before = sites.logits(site.client.post('/score', json=body))
      last = sites.events(past[-1:], len(past) - 1)
      site.client.post(url, json=last).raise_for_status()
      kept = site.client.post('/score', json=body)
      assert sites.logits(kept) != before
      given = site.client.post('/score', json={'history': past, **asked})
      for answer in (kept, given):
        np.testing.assert_allclose(
          sites.logits(answer), logits[mine], rtol=1e-6, atol=2e-6
        )
    early = {'history': past, **asked, 'time': 0}
    other = site.client.post('/score', json=early)
    assert sites.logits(other) != sites.logits(given)
    assert 'result="appended"} 4.0' in site.client.get('/metrics').text
  site.service.close()


def test_a_bundle_without_times_is_refused(bundle):
  opened = reading.open(bundle)
  past = {'item': opened.ids('item', ['i1']), 'category': np.ones(1, int)}
  with pytest.raises(errors.UsageError, match='history: expected.*, time, got'):
    opened.score([past], [past], [{'time': 5}])
  with pytest.raises(errors.UsageError, match='context: expected.*time, got'):
    opened.score([{**past, 'time': np.zeros(1, int)}], [past])


@pytest.mark.parametrize('of', ['workdir', 'bundle'])
def test_predict_scores_as_evaluation_did(root, bundle, tmp_path, of):
  frame, logits = cases.rows(root / 'run')
  frame = frame.with_columns(pl.from_epoch('timestamp').dt.to_string())
  frame.write_csv(tmp_path / 'in.csv')
  model = {
    'workdir': {'workdir': str(root / 'run')},
    'bundle': {'bundle': str(bundle), 'history': str(root / 'log.csv')},
  }
  request = predict.Request(
    input=str(tmp_path / 'in.csv'),
    output=str(tmp_path / 'out.csv'),
    data_dir=str(root / 'data'),
    **model[of],
  )
  predict.predict(request, block_rows=cases.BLOCK)
  found = cases.logits(tmp_path / 'out.csv')
  np.testing.assert_allclose(found, logits, rtol=1e-6, atol=2e-6)
  # Without a time, a moment is at the log's end.
  frame.drop('timestamp').write_csv(tmp_path / 'in.csv')
  request = dataclasses.replace(request, output=str(tmp_path / 'last.csv'))
  predict.predict(request)
  assert np.isfinite(cases.logits(tmp_path / 'last.csv')).all()


def test_python_scores_as_evaluation_did(root, run):
  store, test = run.experiment.store, run.experiment.pipelines['test']
  item = next(test.eval_batches(1))
  user, end = int(test.moments.user[0]), int(test.moments.end[0])
  now = int(store.behaviors.columns['timestamp'][test.moments.target[0]])
  rows = slice(int(store.behaviors.offsets[user]), end)
  names = {field: store.raw_ids(field) for field in store.fields}
  raw = lambda field, ids: names[field].gather(ids - 2).to_list()
  behaviors = store.behaviors.columns
  past = {f: raw(f, np.array(behaviors[f'{f}_id'][rows])) for f in names}
  dates = pl.from_epoch(pl.Series(np.array(behaviors['timestamp'][rows])))
  targets = {f: raw(f, x[0, 0]) for f, x in item.stored.targets.ids.items()}
  expected = jax.jit(run.model.apply)(run.variables, item.batch).logits[0, 0]
  for times in (dates.to_list(), dates.dt.to_string().to_list()):
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    found = run.score(
      {**past, 'time': times}, targets, now=moment.replace(tzinfo=None)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  with pytest.raises(errors.UsageError, match='given were neither'):
    run.score(past, targets)
  with pytest.raises(errors.UsageError, match='expected a date or time'):
    run.score({**past, 'time': [5] * len(times)}, targets, now=moment)
