"""The protocol over gRPC: what HTTP answers, by classes of its own."""

from __future__ import annotations

import asyncio
import signal
import threading

import grpc
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.server.rpc import schema
from dare_jax.server.rpc import servicer
from tests.server import double
from tests.server import process
from tests.server import sites

_CODES = grpc.StatusCode


class Client:
  """Calls methods by their names."""

  def __init__(self, port, token=None):
    self._channel = grpc.insecure_channel(f'127.0.0.1:{port}')
    self._token = token
    self.messages = schema.messages()

  def __call__(self, method, request=None, **fields):
    request = request or self.messages[f'{method}Request'](**fields)
    call = self._channel.unary_unary(
      f'/{schema.SERVICE}/{method}',
      request_serializer=lambda message: message.SerializeToString(),
      response_deserializer=self.messages[f'{method}Response'].FromString,
    )
    told = [('authorization', f'Bearer {self._token}')] if self._token else []
    return call(request, timeout=20, metadata=told)

  def code(self, *args, **fields):
    """Returns the status and the message of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
      self(*args, **fields)
    return caught.value.code(), caught.value.details()

  def close(self):
    self._channel.close()


@pytest.fixture
def served():
  """A site of this process, and a client of its gRPC."""
  site = sites.open_site(token='t' * 20)
  log = lambda event, **told: site.log.append({'event': event, **told})
  loop = asyncio.new_event_loop()
  thread = threading.Thread(target=loop.run_forever)
  thread.start()

  async def start():
    made = servicer.Server(
      servicer.Servicer(site.service, 't' * 20, log), '127.0.0.1', 0, 20_000
    )
    await made.start()
    return made

  run = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(20)
  server = run(start())
  client = Client(server.port, 't' * 20)
  yield site, client, server
  client.close()
  run(server.stop(0))
  loop.call_soon_threadsafe(loop.stop)
  thread.join()
  loop.close()
  site.service.close()


def _request(messages, raw, outputs=()):
  made = messages['ModelInferRequest'](model_name='double', id='x')
  columns = {
    f'{side}.{field}': [row[field] for row in rows]
    for side, rows in (
      ('history', sites.history(4)),
      ('candidates', sites.CANDIDATES),
    )
    for field in ('item', 'category')
  }
  for name, values in columns.items():
    texts = [value.encode() for value in values]
    tensor = made.inputs.add(name=name, datatype='BYTES', shape=[1, len(texts)])
    if raw:
      sizes = [len(text).to_bytes(4, 'little') for text in texts]
      pairs = zip(sizes, texts, strict=True)
      made.raw_input_contents.append(b''.join(a + b for a, b in pairs))
    else:
      tensor.contents.bytes_contents.extend(texts)
  for name in outputs:
    made.outputs.add(name=name)
  return made


@pytest.mark.parametrize('raw', [False, True])
def test_infer_equals_score(served, raw):
  site, client, _ = served
  wanted = ('logit', 'unknown', 'found_position')
  answer = client('ModelInfer', _request(client.messages, raw, wanted))
  assert (answer.model_name, answer.model_version) == ('double', 'v1')
  assert answer.id == 'x'
  dtypes = {'FP32': np.float32, 'BOOL': bool, 'INT32': np.int32}
  found = {
    one.name: np.frombuffer(blob, dtypes[one.datatype]).reshape(one.shape)
    for one, blob in zip(
      answer.outputs, answer.raw_output_contents, strict=True
    )
  }
  assert [*found] == [*wanted]
  body = {
    'history': sites.history(4), 'candidates': sites.CANDIDATES, 'explain': True
  }  # fmt: skip
  own = {'Authorization': f'Bearer {"t" * 20}'}
  single = site.client.post('/score', json=body, headers=own)
  assert found['logit'][0].tolist() == sites.logits(single)
  for row, score in enumerate(single.json()['scores']):
    places = [one['position'] for one in score['found']]
    assert [p for p in found['found_position'][0, row] if p] == places
  assert found['unknown'][0].tolist() == [[False] * 2] * 2 + [[True, False]]


def test_says_what_it_is(served):
  site, client, _ = served
  assert client('ServerLive').live
  assert client('ServerReady').ready
  assert client('ModelReady', name='double').ready
  assert client('ServerMetadata').name == 'dare_jax'
  told = client('ModelMetadata', name='double')
  over_http = site.client.get(
    '/v2/models/double', headers={'Authorization': f'Bearer {"t" * 20}'}
  ).json()
  assert list(told.versions) == over_http['versions']
  assert [one.name for one in told.inputs] == [
    one['name'] for one in over_http['inputs']
  ]
  assert list(told.outputs[0].shape) == over_http['outputs'][0]['shape']


def test_errors_have_their_codes(served):
  site, client, server = served
  request = _request(client.messages, raw=False)
  other = Client(server.port)
  assert other.code('ModelInfer', request)[0] == _CODES.UNAUTHENTICATED
  assert other('ServerReady').ready
  other.close()
  assert client.code('ModelReady', name='x')[0] == _CODES.NOT_FOUND
  request.outputs.add(name='nothing')
  code, told = client.code('ModelInfer', request)
  assert code == _CODES.INVALID_ARGUMENT
  assert told.startswith('outputs.nothing: expected one of logit')
  del request.outputs[:]
  for change, told in (
    (lambda one: one.inputs[0].shape.append(9), 'has 36 values, got 4'),
    (lambda one: setattr(one.inputs[0], 'datatype', 'FP32'), 'datatype'),
    (lambda one: one.raw_input_contents.append(b''), 'one for each of 4'),
    (
      lambda one: one.inputs[0].contents.bytes_contents.__setitem__(0, b'\xff'),
      'not UTF-8',
    ),
  ):
    broken = type(request).FromString(request.SerializeToString())
    change(broken)
    found = client.code('ModelInfer', broken)
    assert found[0] == _CODES.INVALID_ARGUMENT
    assert told in found[1]
  request.parameters['x'].string_param = 'x' * 30_000
  assert client.code('ModelInfer', request)[0] == _CODES.RESOURCE_EXHAUSTED
  site.service.draining = True
  assert client.code('ModelMetadata', name='double')[0] == _CODES.UNAVAILABLE
  assert not client('ServerReady').ready
  codes = {one['route']: one['status'] for one in site.log}
  assert codes['grpc_ModelMetadata'] == 503


def test_a_taken_port_is_told(served):
  _, _, server = served

  class Nothing:
    def handler(self):
      return grpc.method_handlers_generic_handler('x', {})

  async def start():
    servicer.Server(Nothing(), '127.0.0.1', server.port, 1)

  with pytest.raises(errors.UsageError, match='--grpc_port'):
    asyncio.run(start())


def test_the_command_serves_both(tmp_path):
  bundle = double.write(tmp_path / 'bundle')
  with process.Server(bundle, '--grpc_port=0', '--drain_s=0') as server:
    port = int(server.line.split('for gRPC at port ')[1])
    client = Client(port)
    answer = client('ModelInfer', _request(client.messages, raw=True))
    assert [one.name for one in answer.outputs] == [
      'logit', 'probability', 'unknown',
    ]  # fmt: skip
    client.close()
    server.send(signal.SIGTERM)
    assert server.wait() == 0
