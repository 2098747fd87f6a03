"""The HTTP surface, over a double of a bundle."""

from __future__ import annotations

import dataclasses
import json
import struct
import threading
import time
from typing import Any

import numpy as np
import pytest
from starlette import testclient

from dare_jax.server import app
from dare_jax.server import service as service_lib
from dare_jax.server import stores
from tests.server import double as double_lib

_LIMITS = service_lib.Limits(max_candidates=50, max_body_bytes=20_000)
_URL = 'http://127.0.0.1'


@dataclasses.dataclass
class Site:
  """A server in this process: what it answers from, and a client."""

  bundle: double_lib.Double
  service: service_lib.Service
  client: testclient.TestClient
  log: list[dict[str, Any]]

  def error(self, status: int, answer: Any) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {'error'}
    return answer.json()['error']


def open_site(
  bundle: double_lib.Double | None = None,
  token: str | None = None,
  limits: service_lib.Limits = _LIMITS,
  is_ready: bool = True,
  beside: double_lib.Double | None = None,
) -> Site:
  bundle = bundle or double_lib.Double()
  bundles = [bundle] if beside is None else [bundle, beside]
  store = stores.open_store('memory', 100)
  service = service_lib.Service(bundles, store, limits)
  for slot in service.slots.values():
    if is_ready:
      service.take(slot.loading)
  log: list[dict[str, Any]] = []
  made = app.make(
    service, token, lambda event, **told: log.append({'event': event, **told})
  )
  client = testclient.TestClient(
    made, base_url=_URL, raise_server_exceptions=False
  )
  return Site(bundle, service, client, log)


@pytest.fixture
def site():
  opened = open_site()
  with opened.client:
    yield opened
  opened.service.close()


def history(length: int = 6) -> list[dict[str, Any]]:
  return [
    {'item': f'i{n}', 'category': f'c{n % 2}', 'time': 100 + n}
    for n in range(length)
  ]


CANDIDATES = [
  {'item': 'i50', 'category': 'c0'},
  {'item': 'i60', 'category': 'c1'},
  {'item': 'never', 'category': 'c1'},
]


def events(rows: list[dict[str, Any]], start: int = 0) -> dict[str, Any]:
  return {
    'events': [
      {'event_id': f'e{start + n}', **row} for n, row in enumerate(rows)
    ]
  }


def expected(
  bundle: double_lib.Double, rows: list[dict[str, Any]]
) -> np.ndarray:
  past = {f: bundle.ids(f, [row[f] for row in rows]) for f in bundle.fields}
  asked = {
    f: bundle.ids(f, [row[f] for row in CANDIDATES]) for f in bundle.fields
  }
  return bundle.score([past], [asked], None)[0].logit


def logits(answer: Any) -> list[float]:
  assert answer.status_code == 200, answer.text
  return [one['logit'] for one in answer.json()['scores']]


def test_a_history_in_the_request_is_scored(site):
  body = {'history': history(), 'candidates': CANDIDATES, 'explain': True}
  answer = site.client.post('/score', json=body)
  np.testing.assert_array_equal(
    np.float32(logits(answer)), expected(site.bundle, history())
  )
  told = answer.json()
  assert (told['model'], told['version']) == ('double', 'v1')
  assert told['behaviors'] == 6
  assert told['unknown'] == {'item': 1, 'category': 0}
  first, _, last = told['scores']
  assert first['probability'] == pytest.approx(
    1 / (1 + np.exp(-first['logit']))
  )
  assert (first['unknown'], last['unknown']) == ([], ['item'])
  # Of category c0 are behaviors 0, 2 and 4 of 6: 6, 4 and 2 back.
  assert [one['position'] for one in first['found']] == [2, 4, 6]
  assert first['found'][0] == {
    'item': 'i4',
    'category': 'c0',
    'time': 104,
    'position': 2,
    'weight': pytest.approx(1 / 3),
  }


def test_only_the_last_behaviors_count(site):
  body = {'candidates': CANDIDATES}
  long = site.client.post('/score', json={'history': history(50), **body})
  short = site.client.post(
    '/score', json={'history': history(50)[-20:], **body}
  )
  assert logits(long) == logits(short)
  assert long.json()['behaviors'] == 20


def test_events_of_a_user_are_scored_as_if_they_were_given(site):
  rows = history(30)
  site.client.post('/users/u/events', json=events(rows))
  asked = {'candidates': CANDIDATES, 'explain': True}
  kept = site.client.post('/score', json={'user_id': 'u', **asked})
  given = site.client.post('/score', json={'history': rows, **asked})
  assert kept.json() == given.json()


def test_a_state_is_used_again_and_appended_to(site):
  asked = {'user_id': 7, 'candidates': CANDIDATES}
  post = site.client.post
  post('/users/7/events', json=events(history(5)))
  first = logits(post('/score', json=asked))
  assert logits(post('/score', json=asked)) == first
  assert (site.bundle.encoded, site.bundle.appended) == (1, 0)
  later = [{'item': 'i9', 'category': 'c1', 'time': 900}]
  post('/users/7/events', json=events(later, 5))
  changed = logits(post('/score', json=asked))
  assert (site.bundle.encoded, site.bundle.appended) == (1, 1)
  np.testing.assert_array_equal(
    np.float32(changed), expected(site.bundle, history(5) + later)
  )
  late = [{'item': 'i8', 'category': 'c1', 'time': 102}]
  post('/users/7/events', json=events(late, 6))
  after = logits(post('/score', json=asked))
  assert site.bundle.encoded == 2
  order = history(5)[:3] + late + history(5)[3:] + later
  np.testing.assert_array_equal(np.float32(after), expected(site.bundle, order))


def test_events_count_once_and_can_be_read(site):
  post = site.client.post
  answer = post('/users/a%2Fb/events', json=events(history(3)))
  assert answer.json() == {'accepted': 3, 'duplicates': 0, 'expired': 0}
  answer = post('/users/a%2Fb/events', json=events(history(4)))
  assert answer.json() == {'accepted': 1, 'duplicates': 3, 'expired': 0}
  kept = site.client.get('/users/a%2Fb/events').json()['events']
  assert kept == history(4)
  assert site.client.get('/users/a%2Fb/events?last=1').json() == {
    'events': kept[-1:]
  }
  assert site.client.get('/users').json() == {'users': ['a/b']}


def test_an_event_without_time_is_of_now(site):
  row = {'item': 'i1', 'category': 'c1'}
  site.client.post('/users/u/events', json=events([row]))
  kept = site.client.get('/users/u/events').json()['events'][0]
  assert abs(kept['time'] - time.time()) < 60


def test_a_forgotten_user_is_unknown(site):
  site.client.post('/users/u/events', json=events(history()))
  asked = {'user_id': 'u', 'candidates': CANDIDATES}
  assert site.client.post('/score', json=asked).status_code == 200
  assert site.client.delete('/users/u').json() == {'deleted': True}
  assert len(site.service.main.known.cache) == 0
  error = site.error(404, site.client.post('/score', json=asked))
  assert error['field'] == 'user_id'
  site.error(404, site.client.delete('/users/u'))
  site.error(404, site.client.get('/users/u/events'))


_ROW = {'item': 'i1', 'category': 'c1'}
# Body -> the field that is named.
_WRONG = [
  ('{', ''),
  ('[]', ''),
  ('"\\ud800"', ''),
  (b'\xff\xfe', ''),
  ({'candidates': [_ROW]}, 'user_id'),
  ({'candidates': [_ROW], 'user_id': 'u', 'history': []}, 'user_id'),
  ({'candidates': [_ROW], 'user_id': None}, 'user_id'),
  ({'candidates': [_ROW], 'user_id': ''}, 'user_id'),
  ({'candidates': [], 'history': []}, 'candidates'),
  ({'candidates': [_ROW] * 51, 'history': []}, 'candidates'),
  ({'candidates': [{'item': 1}], 'history': []}, 'candidates[0].category'),
  ({'candidates': [{**_ROW, 'x': 1}], 'history': []}, 'candidates[0].x'),
  ({'candidates': [{**_ROW, 'item': []}], 'history': []}, 'candidates[0].item'),
  (
    {'candidates': [{**_ROW, 'item': True}], 'history': []},
    'candidates[0].item',
  ),
  (
    {'candidates': [{**_ROW, 'item': 0.5}], 'history': []},
    'candidates[].item',
  ),
  (
    {'candidates': [{**_ROW, 'item': 'x' * 300}], 'history': []},
    'candidates[0].item',
  ),
  (
    {'candidates': [{**_ROW, 'item': 2**70}], 'history': []},
    'candidates[0].item',
  ),
  (
    {'candidates': [_ROW], 'history': [{**_ROW, 'time': 'now'}]},
    'history[0].time',
  ),
  ({'candidates': [_ROW], 'history': [], 'context': {'a': 1}}, 'context.a'),
  ({'candidates': [_ROW], 'history': [], 'explian': True}, 'explian'),
]


@pytest.mark.parametrize(('body', 'field'), _WRONG)
def test_a_wrong_request_names_the_field(site, body, field):
  sent = json.dumps(body) if isinstance(body, dict) else body
  answer = site.client.post(
    '/score', content=sent, headers={'Content-Type': 'application/json'}
  )
  error = site.error(400, answer)
  assert error['field'] == field
  assert error['message']


@pytest.mark.parametrize(
  ('row', 'field'),
  [
    ({'item': 1, 'category': 2}, 'events[0].event_id'),
    ({'event_id': None, 'item': 1, 'category': 2}, 'events[0].event_id'),
    ({'event_id': 1, 'item': 1}, 'events[0].category'),
    ({'event_id': 1, **_ROW, 'time': 2**63}, 'events[0].time'),
  ],
)
def test_a_wrong_event_names_the_field(site, row, field):
  answer = site.client.post('/users/u/events', json={'events': [row]})
  assert site.error(400, answer)['field'] == field


def test_missing_values_and_empty_histories_are_scored(site):
  body = {'history': [], 'candidates': [{'item': None, 'category': 3}]}
  answer = site.client.post('/score', json=body).json()
  assert answer['scores'][0]['unknown'] == ['item', 'category']
  assert answer['behaviors'] == 0


def test_context_is_asked_for_where_a_model_has_it():
  site = open_site(double_lib.Double(context_fields=('weekday',)))
  body = {'history': history(), 'candidates': CANDIDATES}
  answer = site.client.post('/score', json=body)
  assert site.error(400, answer)['field'] == 'context'
  body['context'] = {'weekday': 'w5'}
  plain = expected(site.bundle, history())
  np.testing.assert_allclose(
    logits(site.client.post('/score', json=body)), plain + 7, rtol=1e-6
  )
  site.service.close()


def test_limits_of_size_and_kind(site):
  large = {'history': history(2000), 'candidates': CANDIDATES}
  site.error(413, site.client.post('/score', json=large))

  def parts():
    for _ in range(30):
      yield b' ' * 1000

  kind = {'Content-Type': 'application/json'}
  chunked = site.client.post('/score', content=parts(), headers=kind)
  site.error(413, chunked)
  form = site.client.post('/score', content='{}')
  assert site.error(415, form)['field'] == 'Content-Type'
  site.error(404, site.client.get('/no/such'))
  site.error(405, site.client.get('/score'))
  assert (
    site.client.get('/', headers={'Host': 'evil.example'}).status_code == 400
  )


def _in_background(site: Site, count: int, body: Any) -> list[Any]:
  answers: list[Any] = []

  def ask():
    answers.append(site.client.post('/score', json=body))

  threads = [threading.Thread(target=ask) for _ in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return answers


def test_a_full_queue_says_when_to_come_again():
  limits = dataclasses.replace(_LIMITS, max_queue=2)
  site = open_site(double_lib.Double(delay_s=0.3), limits=limits)
  body = {'history': history(), 'candidates': CANDIDATES}
  with site.client:
    answers = _in_background(site, 4, body)
  statuses = sorted(one.status_code for one in answers)
  assert statuses == [200, 200, 429, 429]
  refused = next(one for one in answers if one.status_code == 429)
  assert int(refused.headers['retry-after']) > 0
  site.service.close()


def test_what_takes_too_long_is_given_up():
  limits = dataclasses.replace(_LIMITS, time_limit_s=0.1, score_threads=1)
  site = open_site(double_lib.Double(delay_s=0.3), limits=limits)
  body = {'history': history(), 'candidates': CANDIDATES}
  with site.client:
    answers = _in_background(site, 3, body)
  for answer in answers:
    site.error(504, answer)
  site.service.close()
  # Those that waited beyond their time were not worked on.
  assert site.bundle.calls == 1


def test_users_share_a_call():
  limits = dataclasses.replace(_LIMITS, max_batch=4, batch_wait_s=0.5)
  site = open_site(limits=limits)
  bodies = [
    {'history': history(length), 'candidates': CANDIDATES}
    for length in (2, 3, 5, 8)
  ]
  found: dict[int, list[float]] = {}

  def ask(place: int) -> None:
    found[place] = logits(site.client.post('/score', json=bodies[place]))

  with site.client:
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert site.bundle.calls == 1
  for place, body in enumerate(bodies):
    np.testing.assert_array_equal(
      np.float32(found[place]), expected(site.bundle, body['history'])
    )
  site.service.close()


def test_a_store_that_fails_is_told(site, monkeypatch):
  def fail(*unused):
    raise stores.StoreError('the disk is full')

  monkeypatch.setattr(site.service.store, 'append', fail)
  answer = site.client.post('/users/u/events', json=events(history()))
  assert 'disk is full' in site.error(503, answer)['message']


def test_an_unexpected_error_is_one_of_the_server(site, monkeypatch):
  monkeypatch.setattr(site.bundle, 'score', lambda *a, **k: 1 / 0)
  body = {'history': history(), 'candidates': CANDIDATES}
  error = site.error(500, site.client.post('/score', json=body))
  assert site.log[-1]['request_id'] in error['message']
  assert 'division' not in error['message']


def test_health_before_ready_and_while_leaving():
  site = open_site(is_ready=False)
  get = site.client.get
  body = {'history': history(), 'candidates': CANDIDATES}
  assert get('/v2/health/live').status_code == 200
  site.error(503, get('/v2/health/ready'))
  site.error(503, get('/v2/models/double/ready'))
  site.error(503, site.client.post('/score', json=body))
  site.service.take(site.service.main.loading)
  assert get('/v2/health/ready').status_code == 200
  assert site.client.post('/score', json=body).status_code == 200
  site.service.draining = True
  assert get('/v2/health/live').status_code == 200
  site.error(503, get('/v2/health/ready'))
  refused = site.client.post('/score', json=body)
  site.error(503, refused)
  assert refused.headers['connection'] == 'close'
  assert int(refused.headers['retry-after']) > 0
  assert get('/metrics').status_code == 200
  site.service.close()


def test_a_token_is_asked_for():
  site = open_site(token='0123456789abcdef')
  get = site.client.get
  for headers in ({}, {'Authorization': 'Bearer 0123456789abcdeF'}):
    refused = get('/metrics', headers=headers)
    assert site.error(401, refused)['field'] == 'Authorization'
  bearer = {'Authorization': 'Bearer 0123456789abcdef', 'Host': 'any.example'}
  assert get('/metrics', headers=bearer).status_code == 200
  assert get('/v2/health/ready').status_code == 200
  site.service.close()


def test_metrics_tell_what_happened(site):
  site.client.post('/users/u/events', json=events(history()))
  asked = {'user_id': 'u', 'candidates': CANDIDATES}
  for _ in range(2):
    site.client.post('/score', json=asked)
  text = site.client.get('/metrics').text
  for line in (
    'dare_requests_total{code="200",route="score"} 2.0',
    'dare_states_total{result="hit"} 1.0',
    'dare_states_total{result="encoded"} 1.0',
    'dare_unknown_values_total{field="item",side="candidates"} 2.0',
    'dare_candidates_total 6.0',
    'dare_events_total{result="accepted"} 6.0',
    'dare_bundle_info{model="double",version="v1"} 1.0',
    'dare_ready 1.0',
    'dare_cache_users 1.0',
  ):
    assert line in text, line


def test_the_log_names_requests_and_no_histories(site):
  site.client.post('/users/someone/events', json=events(history()))
  asked = {'user_id': 'someone', 'candidates': CANDIDATES}
  answer = site.client.post(
    '/score', json=asked, headers={'X-Request-ID': 'mine-1'}
  )
  assert answer.headers['x-request-id'] == 'mine-1'
  assert site.log[-1]['request_id'] == 'mine-1'
  assert site.log[-1]['route'] == 'score'
  told = json.dumps(site.log)
  assert 'someone' not in told
  assert 'i50' not in told
  forged = site.client.get('/users', headers={'X-Request-ID': 'a b'})
  assert forged.headers['x-request-id'] != 'a b'


def test_v1_predict_answers_each_instance(site):
  bodies = [
    {'history': history(length), 'candidates': CANDIDATES} for length in (3, 6)
  ]
  answer = site.client.post(
    '/v1/models/double:predict', json={'instances': bodies}
  )
  singles = [site.client.post('/score', json=body).json() for body in bodies]
  assert answer.json() == {'predictions': singles}
  other = site.client.post(
    '/v1/models/other:predict', json={'instances': bodies}
  )
  assert site.error(404, other)['field'] == 'model'


def _tensors() -> list[dict[str, Any]]:
  rows = [history(4), history(4)[:2]]
  padded = [rows[0], rows[1] + [{'item': '', 'category': ''}] * 2]
  tensors = [
    {
      'name': f'history.{field}',
      'shape': [2, 4],
      'datatype': 'BYTES',
      'data': [one[field] for row in padded for one in row],
    }
    for field in ('item', 'category')
  ]
  tensors += [
    {
      'name': f'candidates.{field}',
      'shape': [2, 3],
      'datatype': 'BYTES',
      'data': [[one[field] for one in CANDIDATES]] * 2,
    }
    for field in ('item', 'category')
  ]
  lengths = {'name': 'history_length', 'shape': [2], 'datatype': 'INT32'}
  return [*tensors, {**lengths, 'data': [4, 2]}]


def test_v2_infer_equals_score(site):
  wanted = ('logit', 'unknown', 'found_position', 'found_weight')
  body = {
    'id': 'x',
    'inputs': _tensors(),
    'outputs': [{'name': name} for name in wanted],
  }
  answer = site.client.post('/v2/models/double/infer', json=body).json()
  assert (answer['model_name'], answer['id']) == ('double', 'x')
  found = {
    one['name']: np.reshape(one['data'], one['shape'])
    for one in answer['outputs']
  }
  assert found['logit'].shape == (2, 3)
  for row, length in enumerate((4, 2)):
    asked = {'history': history(length), 'candidates': CANDIDATES}
    single = site.client.post('/score', json={**asked, 'explain': True}).json()
    for place, score in enumerate(single['scores']):
      assert found['logit'][row, place] == score['logit']
      positions = [one['position'] for one in score['found']]
      told = [p for p in found['found_position'][row, place] if p]
      assert told == positions
      names = [
        name
        for name, flag in zip(
          site.bundle.fields, found['unknown'][row, place], strict=True
        )
        if flag
      ]
      assert names == score['unknown']


def test_v2_infer_in_binary(site):
  inputs, blobs = [], []
  for tensor in _tensors():
    flat = np.array(tensor.pop('data')).ravel().tolist()
    if tensor['datatype'] == 'BYTES':
      blob = b''.join(struct.pack('<I', len(v)) + v.encode() for v in flat)
    else:
      blob = np.array(flat, '<i4').tobytes()
    inputs.append({**tensor, 'parameters': {'binary_data_size': len(blob)}})
    blobs.append(blob)
  head = json.dumps(
    {'inputs': inputs, 'parameters': {'binary_data_output': True}}
  ).encode()
  header = {'Inference-Header-Content-Length': str(len(head))}
  answer = site.client.post(
    '/v2/models/double/infer', content=head + b''.join(blobs), headers=header
  )
  assert answer.status_code == 200, answer.text
  size = int(answer.headers['inference-header-content-length'])
  told = json.loads(answer.content[:size])['outputs']
  assert [one['name'] for one in told] == ['logit', 'probability', 'unknown']
  first = told[0]['parameters']['binary_data_size']
  got = np.frombuffer(answer.content[size : size + first], '<f4')
  plain = site.client.post(
    '/v2/models/double/infer', json={'inputs': _tensors()}
  )
  np.testing.assert_array_equal(
    got, np.float32(plain.json()['outputs'][0]['data'])
  )


def _changed(name: str, **changes: Any) -> list[dict[str, Any]]:
  return [
    {**one, **changes} if one['name'] == name else one for one in _tensors()
  ]


@pytest.mark.parametrize(
  ('inputs', 'field'),
  [
    ([], 'inputs.candidates.item'),
    (_tensors()[:1] + _tensors()[2:], 'inputs.history.category'),
    (_changed('history.item', shape=[2, 3]), 'inputs.history.item'),
    (_changed('history.item', shape=[8]), 'inputs.history.item'),
    (_changed('history.item', data=[1] * 8), 'inputs.history.item'),
    (_changed('history.item', datatype='FP32'), 'inputs.history.item'),
    (_changed('history_length', data=[4, 9]), 'inputs.history_length'),
    (
      [*_tensors(), {**_tensors()[4], 'name': 'x'}],
      'inputs.x',
    ),
    (
      [{'name': 'user_id', 'shape': [1], 'datatype': 'BYTES'}],
      'inputs.user_id',
    ),
  ],
)
def test_wrong_tensors_are_named(site, inputs, field):
  answer = site.client.post('/v2/models/double/infer', json={'inputs': inputs})
  assert site.error(400, answer)['field'] == field


def test_v2_infer_by_user(site):
  site.client.post('/users/u/events', json=events(history()))
  inputs = [one for one in _tensors() if one['name'].startswith('candidates')]
  for one in inputs:
    one.update(shape=[1, 3], data=one['data'][0])
  users = {'name': 'user_id', 'shape': [1], 'datatype': 'BYTES', 'data': ['u']}
  answer = site.client.post(
    '/v2/models/double/infer', json={'inputs': [users, *inputs]}
  )
  np.testing.assert_array_equal(
    np.float32(answer.json()['outputs'][0]['data']),
    expected(site.bundle, history()),
  )


def test_the_model_describes_itself(site):
  told = site.client.get('/v2/models/double').json()
  assert (told['name'], told['versions']) == ('double', ['v1'])
  assert told['fields'] == ['item', 'category']
  assert told['refused'] is None
  site.error(404, site.client.get('/v2/models/other'))


def test_two_models_answer_side_by_side():
  other = double_lib.Double('w1', name='other')
  site = open_site(beside=other)
  site.client.post('/users/u/events', json=events(history()))
  asked = {'user_id': 'u', 'candidates': CANDIDATES}
  for bundle in (site.bundle, other):
    answer = site.client.post('/score', json={**asked, 'model': bundle.name})
    assert answer.json()['model'] == bundle.name
    np.testing.assert_array_equal(
      np.float32(logits(answer)), expected(bundle, history())
    )
  models = site.client.get('/models').json()['models']
  assert [one['name'] for one in models] == ['double', 'other']
  unknown = site.client.post('/score', json={**asked, 'model': 'third'})
  assert site.error(404, unknown)['field'] == 'model'
  site.service.close()


def test_openapi_names_all_routes(site):
  told = site.client.get('/openapi.json').json()
  paths = {
    (path, method.upper())
    for path, methods in told['paths'].items()
    for method in methods
    if method != 'parameters'
  }
  assert ('/score', 'POST') in paths
  assert ('/users/{user}/events', 'POST') in paths
  assert ('/users/{user}', 'DELETE') in paths
  assert ('/v2/models/double/infer', 'POST') in paths
  text = json.dumps(told)
  names = set(told['components']['schemas'])
  used = {
    part.split('"')[0] for part in text.split('#/components/schemas/')[1:]
  }
  assert used <= names
  candidate = told['components']['schemas']['Candidate']
  assert candidate['required'] == ['item', 'category']
