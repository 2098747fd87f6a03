"""Times of requests and events, for models that read them, from a double."""

from __future__ import annotations

import pytest

from dare_jax import errors
from dare_jax.bundle import times as times_lib
from dare_jax.server import runner
from dare_jax.server import stores
from dare_jax.server import swap
from dare_jax.server.inference import protocol
from dare_jax.server.rpc import schema
from dare_jax.server.rpc import servicer
from tests.server import double as double_lib
from tests.server import sites

_MONDAY = 1_699_833_600
_HOUR = 3600
_NEW = {'item': 'i1', 'category': 'c1'}
_SECONDS = times_lib.Times('seconds', 1, _MONDAY)


@pytest.fixture
def site():
  opened = sites.open_site(double_lib.Timed(_SECONDS))
  with opened.client:
    yield opened
  opened.service.close()


def _history(length=6):
  """Behaviors, an hour apart."""
  rows = sites.history(length)
  return [{**row, 'time': _MONDAY + _HOUR * n} for n, row in enumerate(rows)]


def _hours(site, **asked):
  """Returns how many hours the last behavior was ago, by the logits."""
  body = {'candidates': sites.CANDIDATES, **asked}
  first = sites.logits(site.client.post('/score', json=body))[0]
  rows = asked.get('history') or _kept(site)
  plain = double_lib.Double()
  bare = [{f: row[f] for f in ('item', 'category')} for row in rows]
  return first - sites.expected(plain, bare)[0]


def _kept(site):
  return site.client.get('/users/u/events').json()['events']


def test_gaps_of_given_histories(site):
  at = lambda hours: _MONDAY + _HOUR * hours
  rows = _history()
  assert _hours(site, history=rows, time=at(7)) == pytest.approx(2)
  dates = [{**row, 'time': f'2023-11-13T0{n}:00'} for n, row in enumerate(rows)]
  given = _hours(site, history=dates, time='2023-11-13 09:30:00Z')
  assert given == pytest.approx(4.5)
  # A model is shown the last 20; the moment is now if nothing is said.
  long = _history(30)
  assert _hours(site, history=long, time=at(30)) == pytest.approx(1)
  assert _hours(site, history=long) > 10_000
  found = site.client.post(
    '/score',
    json={
      'history': rows,
      'candidates': sites.CANDIDATES,
      'explain': True,
      'time': at(9),
    },
  ).json()['scores'][0]['found']
  assert [one['time'] for one in found] == [at(4), at(2), at(0)]


@pytest.mark.parametrize('state', ['memory', 'sqlite'])
def test_gaps_of_kept_users(tmp_path, state):
  where = state if state == 'memory' else f'sqlite:{tmp_path / "s"}'
  site = sites.open_site(
    double_lib.Timed(times_lib.Times('seconds', 1000, _MONDAY)),
    store=stores.open_store(where, 100),
  )
  post = site.client.post
  with site.client:
    rows = _history(3)
    post('/users/u/events', json=sites.events(rows)).raise_for_status()
    asked = {'user_id': 'u', 'time': _MONDAY + 4 * _HOUR + 0.25}
    assert _hours(site, **asked) == pytest.approx(2)
    later = {**rows[0], 'time': '2023-11-13T03:00:00.500'}
    post('/users/u/events', json=sites.events([later], 3))
    assert _hours(site, **asked) == pytest.approx(1)
    assert (site.bundle.encoded, site.bundle.appended) == (1, 1)
    late = {**rows[0], 'time': _MONDAY + 2.5 * _HOUR}
    post('/users/u/events', json=sites.events([late], 4))
    assert _hours(site, **asked) == pytest.approx(1)
    assert (site.bundle.encoded, site.bundle.appended) == (2, 1)
    times = [(row['time'] - _MONDAY) / _HOUR for row in _kept(site)]
    assert times == [0, 1, 2, 2.5, 3 + 0.5 / _HOUR]
    post('/users/u/events', json=sites.events([_NEW], 5))
    assert _hours(site, user_id='u') == pytest.approx(0, abs=0.1)
  site.service.close()


@pytest.mark.parametrize(
  ('change', 'field', 'told'),
  [
    ({'time': _MONDAY * 1000}, 'time', 'looks like milliseconds'),
    ({'time': 'soon'}, 'time', 'expected seconds since 1970, or a date'),
    ({'time': True}, 'time', 'got `bool`'),
    ({'history': [_NEW]}, 'history[0].time', 'seconds since 1970'),
    (
      {'history': [*_history(24), _NEW]},
      'history[24].time',
      'missing, and the model reads how long ago',
    ),
    (
      {'history': [{**_NEW, 'time': 'x'}]},
      'history[].time',
      'expected seconds',
    ),
  ],
)
def test_other_times_are_refused(site, change, field, told):
  body = {'history': _history(), 'candidates': sites.CANDIDATES, **change}
  answer = site.client.post('/score', json=body)
  error = site.error(400, answer)
  assert error['field'] == field
  assert told in error['message']
  if 'history' in change:
    sent = sites.events([{**change['history'][-1], 'time': 'x'}])
    answer = site.client.post('/users/u/events', json=sent)
    assert site.error(400, answer)['field'] == 'events[].time'


def test_weekdays_alone_need_no_times_of_behaviors(site):
  site.bundle.real_time = ('weekday',)
  rows = [{**row, 'time': None} for row in sites.history(2)]
  body = {'history': rows, 'candidates': sites.CANDIDATES, 'explain': True}
  scores = site.client.post('/score', json=body).json()['scores']
  assert scores[0]['found'][0]['time'] is None


def test_tensors_of_times(site):
  rows, now = _history(4), _MONDAY + 6 * _HOUR
  request = schema.messages()['ModelInferRequest'](model_name='double')
  for side, own in (('history', rows), ('candidates', sites.CANDIDATES)):
    for field in ('item', 'category'):
      tensor = request.inputs.add(
        name=f'{side}.{field}', datatype='BYTES', shape=[1, len(own)]
      )
      tensor.contents.bytes_contents.extend(row[field].encode() for row in own)
  tensor = request.inputs.add(
    name='history.time', datatype='INT64', shape=[1, 4]
  )
  tensor.contents.int64_contents.extend(row['time'] for row in rows)
  tensor = request.inputs.add(name='time', datatype='INT64', shape=[1])
  tensor.contents.int64_contents.append(now)
  over_grpc = protocol.outputs(
    site.service.scorer, site.service.main.known, servicer.read(request), []
  )
  body = {'history': rows, 'candidates': sites.CANDIDATES, 'time': now}
  expected = sites.logits(site.client.post('/score', json=body))
  assert over_grpc['logit'][0].tolist() == expected
  tensors = [
    {
      'name': one.name,
      'shape': list(one.shape),
      'datatype': one.datatype,
      'data': [text.decode() for text in one.contents.bytes_contents]
      or list(one.contents.int64_contents),
    }
    for one in request.inputs
  ]
  url = '/v2/models/double/infer'
  answer = site.client.post(url, json={'inputs': tensors}).json()
  assert answer['outputs'][0]['data'] == expected
  without = [one for one in tensors if one['name'] != 'history.time']
  answer = site.client.post(url, json={'inputs': without})
  assert site.error(400, answer)['field'] == 'history[0].time'


def test_says_what_it_reads(site):
  told = site.client.get('/v2/models/double').json()
  assert (told['real_time'], told['time_unit']) == (['gap'], 'seconds')
  names = [one['name'] for one in told['inputs']]
  assert {'history.time', 'time'} < set(names)
  schemas = site.client.get('/openapi.json').json()['components']['schemas']
  kinds = {
    one['type'] for one in schemas['Behavior']['properties']['time']['anyOf']
  }
  assert {'string', 'number'} < kinds
  assert 'time' in schemas['ScoreRequest']['properties']
  plain = sites.open_site()
  told = plain.client.get('/openapi.json').json()['components']['schemas']
  assert 'time' not in told['ScoreRequest']['properties']
  body = {'history': [], 'candidates': sites.CANDIDATES, 'time': 5}
  error = plain.error(400, plain.client.post('/score', json=body))
  assert error['field'] == 'time'
  plain.service.close()


def test_models_beside_each_other():
  """One reads times, the other does not; both are sent the same."""
  timed = double_lib.Timed(_SECONDS, 'timed')
  runner.check_beside([double_lib.Double(), timed])
  site = sites.open_site(beside=timed)
  body = {'history': _history(3), 'candidates': sites.CANDIDATES}
  body['time'] = _MONDAY + 5 * _HOUR
  plain, own = (
    sites.logits(site.client.post('/score', json={**body, 'model': name}))
    for name in ('double', 'timed')
  )
  assert [a - b for a, b in zip(own, plain, strict=True)] == pytest.approx(
    [3] * 3
  )
  site.service.close()
  other = double_lib.Timed(times_lib.Times('milliseconds', 1, 0))
  with pytest.raises(errors.UsageError, match='times of other units'):
    runner.check_beside([timed, other])
  assert 'times differ' in swap.misfit(double_lib.Double(), other)
  later = times_lib.Times('seconds', 1, _MONDAY + 604_800)
  assert swap.misfit(timed, double_lib.Timed(later, 'timed')) is None
