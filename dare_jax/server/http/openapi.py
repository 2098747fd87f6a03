"""The description at `/openapi.json`, from the types that decode requests."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec

from dare_jax.server import messages
from dare_jax.server import served as served_lib
from dare_jax.server.inference import bodies

_REF = '#/components/schemas/{name}'
_REASONS = {
  400: 'The request is wrong; `field` says where.',
  401: 'The token is missing or another.',
  404: 'No such model, or no events of this user are kept.',
  408: 'The body did not come in time.',
  413: 'The body is too large.',
  415: 'The body is not said to be application/json.',
  429: 'Too many requests are waiting; Retry-After says when to come again.',
  503: 'Not ready, leaving, or the store does not answer.',
  504: 'No answer in time.',
}
_READING = (400, 401, 429, 503, 504)
_ASKING = (*_READING, 404, 408, 413, 415)


def describe(slots: Mapping[str, served_lib.Slot]) -> dict[str, Any]:
  """Returns the OpenAPI document of a server with some models."""
  import dare_jax

  made = next(iter(slots.values())).known.messages
  types = [
    *(made.ScoreRequest, made.EventsRequest, made.PredictRequest),
    *(made.ScoreAnswer, made.PredictAnswer, bodies.ModelDescription),
    *(bodies.InferRequest, bodies.InferAnswer, messages.ErrorAnswer),
    *(messages.Kept, messages.Deleted, messages.Users, bodies.Models),
  ]
  (*_, components) = msgspec.json.schema_components(types, ref_template=_REF)
  either = [{'required': ['user_id']}, {'required': ['history']}]
  components['ScoreRequest']['oneOf'] = either
  paths = _users() | _scoring() | _telling()
  for name in slots:
    paths |= _of_model(name)
  return {
    'openapi': '3.1.0',
    'info': {
      'title': f'dare_jax: {", ".join(slots)}',
      'version': dare_jax.__version__,
      'description': 'Scores candidates after the history of a user.',
    },
    'paths': paths,
    'components': {
      'schemas': components,
      'securitySchemes': {'token': {'type': 'http', 'scheme': 'bearer'}},
    },
    'security': [{}, {'token': []}],
  }


def _scoring() -> dict[str, Any]:
  about = (
    'Logits and probabilities of candidates, after the history of a user whose'
    ' events are kept (user_id), or after one that is given (history).'
  )
  operation = _operation('score', about, _ASKING, 'ScoreRequest', 'ScoreAnswer')
  return {'/score': {'post': operation}}


def _of_model(name: str) -> dict[str, Any]:
  predict = _operation(
    f'predict_{name}',
    'Each instance is a request of /score, each prediction its answer.',
    _ASKING,
    'PredictRequest',
    'PredictAnswer',
  )
  infer = _operation(
    f'infer_{name}',
    'The Open Inference Protocol: tensors user_id or history.FIELD,'
    ' candidates.FIELD, context.FIELD; see the model.',
    _ASKING,
    'InferRequest',
    'InferAnswer',
  )
  about = 'The model that answers now.'
  model = _operation(
    f'model_{name}', about, (401, 503), answer='ModelDescription'
  )
  ready = _operation(
    f'ready_{name}', 'Whether new requests are taken.', (401, 503)
  )
  return {
    f'/v1/models/{name}:predict': {'post': predict},
    f'/v2/models/{name}/infer': {'post': infer},
    f'/v2/models/{name}': {'get': model},
    f'/v2/models/{name}/ready': {'get': ready},
  }


def _users() -> dict[str, Any]:
  user = {
    'name': 'user',
    'in': 'path',
    'required': True,
    'schema': {
      'type': 'string',
      'minLength': 1,
      'maxLength': messages.MOST_TEXT,
    },
  }
  append = _operation(
    'append',
    'Keeps events of a user. An event_id counts once: what is not acknowledged'
    ' may be sent again. Without a time, an event is of now.',
    _ASKING,
    'EventsRequest',
    'Kept',
  )
  events = _operation(
    'events', 'The events that are kept of a user.', (*_READING, 404)
  )
  events['parameters'] = [_number('last')]
  forget = _operation(
    'forget', 'Forgets a user.', (*_READING, 404), answer='Deleted'
  )
  users = _operation('users', 'Some users.', _READING, answer='Users')
  users['parameters'] = [_number('limit')]
  return {
    '/users/{user}/events': {
      'parameters': [user],
      'post': append,
      'get': events,
    },
    '/users/{user}': {'parameters': [user], 'delete': forget},
    '/users': {'get': users},
  }


def _telling() -> dict[str, Any]:
  ready = 'Whether new requests are taken.'
  models = _operation('models', 'All models.', (401, 503), answer='Models')
  return {
    '/models': {'get': models},
    '/v2': {'get': _operation('server', 'The server.', (401, 503))},
    '/v2/health/live': {
      'get': _operation('live', 'Whether the server runs.', ())
    },
    '/v2/health/ready': {'get': _operation('ready', ready, (503,))},
    '/metrics': {
      'get': _operation('metrics', 'For Prometheus.', (401,), kind='text/plain')
    },
  }


def _number(name: str) -> Mapping[str, Any]:
  return {
    'name': name,
    'in': 'query',
    'schema': {'type': 'integer', 'minimum': 1},
  }


def _operation(
  name: str,
  summary: str,
  statuses: Sequence[int],
  body: str | None = None,
  answer: str | None = None,
  kind: str = 'application/json',
) -> dict[str, Any]:
  """Returns one operation, with the answers that it may give."""
  schema = {} if answer is None else _reference(answer)
  answers: dict[str, Any] = {
    '200': {'description': 'Done.', 'content': {kind: {'schema': schema}}}
  }
  problem = {'application/json': {'schema': _reference('ErrorAnswer')}}
  for status in sorted(statuses):
    answers[str(status)] = {
      'description': _REASONS[status],
      'content': problem,
    }
  operation = {'operationId': name, 'summary': summary, 'responses': answers}
  if body is not None:
    content = {'application/json': {'schema': _reference(body)}}
    operation['requestBody'] = {'required': True, 'content': content}
  return operation


def _reference(name: str) -> dict[str, str]:
  return {'$ref': _REF.format(name=name)}
