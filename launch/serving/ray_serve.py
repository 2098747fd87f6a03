"""The server of a bundle as an application of Ray Serve.

    pip install '.[serve]' 'ray[serve]'   # in the checkout, on every machine
    serve run --app-dir launch/serving ray_serve:app \
        bundle=/bundles/current state=redis://redis:6379/0 replicas=4 cpus=2

Every replica is one `dare_jax.serve` without its socket: the same routes,
limits, metrics and errors, over one store, which has to be Redis where there is
more than one. As there, requests to other names than this machine's are
answered only with a token: set DARE_JAX_TOKEN for the replicas. A new bundle is
taken by `serve run` again: replicas that hold the old one finish what they have
begun.
"""

from __future__ import annotations

import os
from typing import Any

from ray import serve
from starlette import requests
from starlette import responses

from dare_jax import errors
from dare_jax.bundle import reading
from dare_jax.server import service as service_lib
from dare_jax.server import stores
from dare_jax.server.http import app as app_lib

_LEAST_EVENTS = 10_000
_ARGUMENTS = ('bundle', 'state', 'replicas', 'cpus')


class Replica:
  """One server, ready once its programs are compiled."""

  def __init__(self, bundle: str, state: str) -> None:
    opened = reading.open(bundle)
    events = max(opened.history_length, _LEAST_EVENTS)
    store = stores.open_store(state, events)
    self._service = service_lib.Service([opened], store, service_lib.Limits())
    opened.warm_up()
    self._service.take(self._service.main.loading)
    token = os.environ.get('DARE_JAX_TOKEN')
    self._app = app_lib.make(self._service, token)

  async def __call__(self, request: requests.Request) -> responses.Response:
    """Answers a request as the server does."""
    begun: dict[str, Any] = {}
    body: list[bytes] = []

    async def send(message: Any) -> None:
      if message['type'] == 'http.response.start':
        begun.update(message)
      else:
        body.append(message.get('body', b''))

    await self._app(request.scope, request.receive, send)
    answer = responses.Response(b''.join(body), begun['status'])
    answer.raw_headers = list(begun['headers'])
    return answer

  def check_health(self) -> None:
    """Raises where Ray Serve is to start another replica."""
    if not self._service.is_ready:
      raise RuntimeError('not ready')


def app(args: dict[str, Any]) -> serve.Application:
  """Returns the application.

  Args:
    args: `bundle`, a path that all machines have; `state`, as `--state` of
      `dare_jax.serve`; `replicas`, how many; `cpus`, of each.

  Raises:
    UsageError: an argument is missing, or not known.
  """
  unknown = set(args) - set(_ARGUMENTS)
  if unknown or 'bundle' not in args:
    raise errors.UsageError(
      'arguments: expected bundle=PATH, and what is to differ of'
      f' {", ".join(_ARGUMENTS[1:])}; got {", ".join(sorted(args)) or "none"}.'
    )
  replicas, state = int(args.get('replicas', 1)), args.get('state', 'memory')
  if replicas > 1 and not state.startswith('redis'):
    raise errors.UsageError(
      f'replicas={replicas}, state={state}: servers share what they keep of'
      ' users in Redis alone; give state=redis://HOST:6379/0.'
    )
  limits = service_lib.Limits()
  deployment = serve.deployment(
    Replica,
    num_replicas=replicas,
    max_ongoing_requests=limits.max_queue,
    ray_actor_options={'num_cpus': float(args.get('cpus', 1))},
  )
  return deployment.bind(args['bundle'], state)
