"""Inference protocols, models and their descriptions."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from tests.server import double as double_lib
from tests.server import sites


def test_v1_predict_answers_each_instance(site):
  bodies = [
    {'history': sites.history(length), 'candidates': sites.CANDIDATES}
    for length in (3, 6)
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
  rows = [sites.history(4), sites.history(4)[:2]]
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
      'data': [[one[field] for one in sites.CANDIDATES]] * 2,
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
    asked = {'history': sites.history(length), 'candidates': sites.CANDIDATES}
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
  site.client.post('/users/u/events', json=sites.events(sites.history()))
  inputs = [one for one in _tensors() if one['name'].startswith('candidates')]
  for one in inputs:
    one.update(shape=[1, 3], data=one['data'][0])
  users = {'name': 'user_id', 'shape': [1], 'datatype': 'BYTES', 'data': ['u']}
  answer = site.client.post(
    '/v2/models/double/infer', json={'inputs': [users, *inputs]}
  )
  np.testing.assert_array_equal(
    np.float32(answer.json()['outputs'][0]['data']),
    sites.expected(site.bundle, sites.history()),
  )


def test_the_model_describes_itself(site):
  told = site.client.get('/v2/models/double').json()
  assert (told['name'], told['versions']) == ('double', ['v1'])
  assert told['fields'] == ['item', 'category']
  assert told['refused'] is None
  site.error(404, site.client.get('/v2/models/other'))


def test_two_models_answer_side_by_side():
  other = double_lib.Double('w1', name='other')
  site = sites.open_site(beside=other)
  site.client.post('/users/u/events', json=sites.events(sites.history()))
  asked = {'user_id': 'u', 'candidates': sites.CANDIDATES}
  for bundle in (site.bundle, other):
    answer = site.client.post('/score', json={**asked, 'model': bundle.name})
    assert answer.json()['model'] == bundle.name
    np.testing.assert_array_equal(
      np.float32(sites.logits(answer)), sites.expected(bundle, sites.history())
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
