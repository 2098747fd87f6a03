"""The routes of the HTTP server, and their handlers."""

from __future__ import annotations

import asyncio
import functools
import importlib.resources
from typing import Any

import msgspec
import prometheus_client
from starlette import applications
from starlette import exceptions
from starlette import requests
from starlette import responses
from starlette import routing
from starlette.middleware import trustedhost

from dare_jax.server import logs
from dare_jax.server import messages
from dare_jax.server import problems
from dare_jax.server import served as served_lib
from dare_jax.server import service as service_lib
from dare_jax.server.http import gate
from dare_jax.server.http import openapi
from dare_jax.server.inference import bodies
from dare_jax.server.inference import protocol

_MOST_USERS = 1000
_PAGE_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
}
# A browser's page elsewhere must not reach a server that asks for no token.
_LOCAL_NAMES = ['localhost', '127.0.0.1', '[::1]']


def make(
  service: service_lib.Service,
  token: str | None = None,
  log: logs.Log = logs.silent,
) -> gate.Gate:
  """Returns the ASGI application of a server.

  Args:
    service: the service that answers.
    token: the bearer token that requests must carry, see `gate.Gate`. Without
      one, only requests to this machine's own names are answered.
    log: called for each request.
  """
  api = _Api(service)
  app = applications.Starlette(
    routes=api.routes(),
    exception_handlers={
      problems.Problem: _on_problem,
      exceptions.HTTPException: _on_http,
      Exception: _on_bug,
    },
  )
  inner: Any = app
  if token is None:
    inner = trustedhost.TrustedHostMiddleware(
      app, allowed_hosts=_LOCAL_NAMES, www_redirect=False
    )
  return gate.Gate(inner, service, token, log)


class _Api:
  """The handlers; the name of each is its route in metrics and logs."""

  def __init__(self, service: service_lib.Service) -> None:
    self._service = service

  def routes(self) -> list[routing.Route]:
    """Returns the routes of the server."""

    def post(path: str, handler: Any) -> routing.Route:
      return routing.Route(path, handler, methods=['POST'])

    get = routing.Route
    user = '/users/{user:path}'
    return [
      get('/', self.page),
      post('/score', self.score),
      get('/users', self.users),
      post(f'{user}/events', self.append),
      get(f'{user}/events', self.events),
      routing.Route(user, self.forget, methods=['DELETE']),
      get('/models', self.models),
      get('/v2', self.server),
      get('/v2/health/live', self.live),
      get('/v2/health/ready', self.ready),
      get('/v2/models/{model}', self.model),
      get('/v2/models/{model}/ready', self.model_ready),
      post('/v2/models/{model}/infer', self.infer),
      get('/v1/models/{model}', self.model),
      post('/v1/models/{model}:predict', self.predict),
      get('/metrics', self.metrics),
      get('/openapi.json', self.openapi),
    ]

  async def score(self, request: requests.Request) -> responses.Response:
    """POST /score."""
    body = await self._json_body(request)
    served = self._service.main.current()

    def work() -> bytes:
      nonlocal served
      with self._service.metrics.stage('parse'):
        asked = served.messages.decode('ScoreRequest', body)
      if asked.model:
        served = self._service.slot(asked.model).current()
      return msgspec.json.encode(self._service.scorer.answer(served, asked))

    return _json(await self._service.run(self._service.scoring, work))

  async def predict(self, request: requests.Request) -> responses.Response:
    """POST /v1/models/NAME:predict: each instance a request of /score."""
    body = await self._json_body(request)
    served = self._slot(request).current()

    def work() -> bytes:
      asked = served.messages.decode('PredictRequest', body)
      answers = self._service.scorer.answers(served, asked.instances)
      return msgspec.json.encode(served.messages.PredictAnswer(answers))

    return _json(await self._service.run(self._service.scoring, work))

  async def infer(self, request: requests.Request) -> responses.Response:
    """POST /v2/models/NAME/infer: the Open Inference Protocol."""
    body = await self._body(request)
    served = self._slot(request).current()
    size = request.headers.get(protocol.HEADER)

    def work() -> tuple[bytes, int | None]:
      return protocol.infer(self._service.scorer, served, body, size)

    answer, json_size = await self._service.run(self._service.scoring, work)
    if json_size is None:
      return _json(answer)
    return responses.Response(
      answer,
      headers={protocol.HEADER: str(json_size)},
      media_type='application/octet-stream',
    )

  async def append(self, request: requests.Request) -> responses.Response:
    """POST /users/ID/events."""
    user = _user(request)
    body = await self._json_body(request)
    served = self._service.main.known

    def work() -> bytes:
      asked = served.messages.decode('EventsRequest', body)
      events = served.messages.events(asked.events)
      done = self._service.store.append(user, events)
      kept = messages.Kept(done.accepted, done.duplicates, done.expired)
      for name, count in msgspec.structs.asdict(kept).items():
        self._service.metrics.events.labels(name).inc(count)
      return msgspec.json.encode(kept)

    return _json(await self._service.run(self._service.appending, work))

  async def events(self, request: requests.Request) -> responses.Response:
    """GET /users/ID/events: what is kept of a user."""
    user = _user(request)
    last = _count(request, 'last', self._service.store.max_events)
    found = await self._service.run(
      self._service.appending, lambda: self._service.store.read(user, last)
    )
    if found is None:
      raise _no_user()
    times = self._service.main.known.messages.shown(found[1].times)
    columns = {**found[1].values, 'time': times}
    rows = zip(*columns.values(), strict=True)
    events = [dict(zip(columns, row, strict=True)) for row in rows]
    return _json(msgspec.json.encode({'events': events}))

  async def forget(self, request: requests.Request) -> responses.Response:
    """DELETE /users/ID."""
    user = _user(request)
    found = await self._service.run(
      self._service.appending, lambda: self._service.forget(user)
    )
    if not found:
      raise _no_user()
    return _json(msgspec.json.encode(messages.Deleted(True)))

  async def users(self, request: requests.Request) -> responses.Response:
    """GET /users: some of those who have events."""
    limit = _count(request, 'limit', _MOST_USERS)
    found = await self._service.run(
      self._service.appending, lambda: self._service.store.users(limit)
    )
    return _json(msgspec.json.encode(messages.Users(found)))

  async def live(self, unused: requests.Request) -> responses.Response:
    """GET /v2/health/live."""
    return _json(b'{"live":true}')

  async def ready(self, unused: requests.Request) -> responses.Response:
    """GET /v2/health/ready."""
    if not self._service.is_ready:
      why = 'leaving' if self._service.draining else 'compiling the programs'
      raise problems.later(503, f'not ready: {why}')
    return _json(b'{"ready":true}')

  async def server(self, unused: requests.Request) -> responses.Response:
    """GET /v2."""
    return _json(msgspec.json.encode(protocol.server_description()))

  async def model(self, request: requests.Request) -> responses.Response:
    """GET /v2/models/NAME."""
    slot = self._slot(request)
    return _json(msgspec.json.encode(protocol.describe(slot)))

  async def models(self, unused: requests.Request) -> responses.Response:
    """GET /models: all of them."""
    described = map(protocol.describe, self._service.slots.values())
    return _json(msgspec.json.encode(bodies.Models(list(described))))

  async def model_ready(self, request: requests.Request) -> responses.Response:
    """GET /v2/models/NAME/ready."""
    self._slot(request)
    return await self.ready(request)

  async def metrics(self, unused: requests.Request) -> responses.Response:
    """GET /metrics."""
    return responses.Response(
      self._service.metrics.text(),
      headers={'Content-Type': prometheus_client.CONTENT_TYPE_LATEST},
    )

  async def openapi(self, unused: requests.Request) -> responses.Response:
    """GET /openapi.json."""
    return responses.JSONResponse(openapi.describe(self._service.slots))

  async def page(self, unused: requests.Request) -> responses.Response:
    """GET /: the page that shows scores and what was found."""
    return responses.HTMLResponse(_page(), headers=_PAGE_HEADERS)

  def _slot(self, request: requests.Request) -> served_lib.Slot:
    return self._service.slot(request.path_params['model'])

  async def _json_body(self, request: requests.Request) -> bytes:
    """Returns the body; asks for JSON, which no form of a browser sends."""
    kind = request.headers.get('content-type', '').partition(';')[0].strip()
    if kind.lower() != 'application/json':
      raise problems.Problem(
        415, 'Content-Type', f'expected application/json, got {kind[:80]!r}'
      )
    return await self._body(request)

  async def _body(self, request: requests.Request) -> bytes:
    most = self._service.limits.max_body_bytes
    too_large = problems.Problem(
      413, '', f'the body has more than {most} bytes', {'Connection': 'close'}
    )
    given = request.headers.get('content-length', '')
    if given.isdecimal() and int(given) > most:
      raise too_large
    parts, size = [], 0
    try:
      async with asyncio.timeout(self._service.limits.time_limit_s):
        async for part in request.stream():
          size += len(part)
          if size > most:
            raise too_large
          parts.append(part)
    except TimeoutError:
      raise problems.Problem(
        408, '', 'the body did not come in time', {'Connection': 'close'}
      ) from None
    return b''.join(parts)


@functools.cache
def _page() -> str:
  files = importlib.resources.files('dare_jax.server')
  return (files / 'page.html').read_text()


def _json(body: bytes) -> responses.Response:
  return responses.Response(body, media_type='application/json')


def _user(request: requests.Request) -> str:
  user = request.path_params['user']
  if not 0 < len(user) <= messages.MOST_TEXT:
    raise problems.bad('user', f'expected 1 to {messages.MOST_TEXT} characters')
  return user


def _no_user() -> problems.Problem:
  return problems.Problem(404, 'user', 'no events of this user are kept')


def _count(request: requests.Request, name: str, most: int) -> int:
  """Returns a number of the query, by default the most."""
  given = request.query_params.get(name, str(most))
  sound = given.isascii() and given.isdecimal() and len(given) < 10
  if not (sound and 0 < int(given) <= most):
    raise problems.bad(name, f'expected a number from 1 to {most}')
  return int(given)


async def _on_problem(
  unused: requests.Request, problem: Any
) -> responses.Response:
  return gate.answer(problem)


async def _on_http(unused: requests.Request, error: Any) -> responses.Response:
  return gate.answer(
    problems.Problem(error.status_code, '', error.detail, error.headers)
  )


async def _on_bug(
  request: requests.Request, unused_error: Exception
) -> responses.Response:
  request_id = request.scope['state']['request_id']
  return gate.answer(
    problems.Problem(500, '', f'an error of the server; request {request_id}')
  )
