"""What every request passes: its id, the token, draining, time and log."""

from __future__ import annotations

import hmac
import time
from typing import Any

from starlette import datastructures
from starlette import responses
from starlette import types

from dare_jax.server import logs
from dare_jax.server import problems
from dare_jax.server import service as service_lib

# Answered while draining, so that callers learn that this server stops.
_ALWAYS = ('/v2/health/live', '/v2/health/ready', '/metrics')
# Probes carry no token. The page holds no data, and asks for the token.
_OPEN = ('/v2/health/live', '/v2/health/ready', '/')


def answer(problem: problems.Problem) -> responses.JSONResponse:
  """Returns the HTTP response of a problem."""
  error = {'field': problem.field, 'message': problem.message}
  return responses.JSONResponse(
    {'error': error}, problem.status, problem.headers
  )


class Gate:
  """An ASGI application that checks and logs requests for another one.

  Args:
    app: the ASGI application that answers.
    service: the service whose metrics count the requests.
    token: the token that requests must carry as `Authorization: Bearer TOKEN`;
      None: none is needed.
    log: called with one event for each request.
  """

  def __init__(
    self,
    app: types.ASGIApp,
    service: service_lib.Service,
    token: str | None,
    log: logs.Log,
  ) -> None:
    self._app, self._service = app, service
    self._token = None if token is None else f'Bearer {token}'.encode()
    self._log = log

  async def __call__(
    self, scope: types.Scope, receive: types.Receive, send: types.Send
  ) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    begin = time.perf_counter()
    headers = datastructures.Headers(scope=scope)
    request_id = logs.request_id(headers.get('x-request-id'))
    scope['state'] = {'request_id': request_id}
    status = 500
    own = [(b'x-request-id', request_id.encode())]

    async def named(message: Any) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
        message['headers'] = [*message['headers'], *own]
      await send(message)

    try:
      problem = self._refusal(scope['path'], headers)
      app = self._app if problem is None else answer(problem)
      await app(scope, receive, named)
    finally:
      self._tell(scope, status, time.perf_counter() - begin)

  def _refusal(
    self, path: str, headers: datastructures.Headers
  ) -> problems.Problem | None:
    given = headers.get('authorization', '').encode()
    if self._token is not None and path not in _OPEN:
      if not hmac.compare_digest(given, self._token):
        return problems.Problem(
          401,
          'Authorization',
          'expected "Bearer TOKEN" with the token of this server',
          {'WWW-Authenticate': 'Bearer'},
        )
    if self._service.draining and path not in _ALWAYS:
      problem = problems.later(503, 'this server is leaving; ask another')
      problem.headers['Connection'] = 'close'
      return problem
    return None

  def _tell(self, scope: types.Scope, status: int, seconds: float) -> None:
    endpoint = scope.get('endpoint')
    # Not the path: it may name a user.
    route = getattr(endpoint, '__name__', 'none')
    metrics = self._service.metrics
    metrics.requests.labels(route, str(status)).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    self._log(
      'request',
      request_id=scope['state']['request_id'],
      method=scope['method'],
      route=route,
      status=status,
      ms=round(seconds * 1e3, 3),
      version=self._service.main.known.bundle.version,
    )
