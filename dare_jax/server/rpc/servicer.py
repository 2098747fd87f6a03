"""The protocol over gRPC, with the limits, metrics and errors of HTTP."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
import hmac
import time
from typing import Any

import grpc
import numpy as np

from dare_jax import errors
from dare_jax.server import logs
from dare_jax.server import problems
from dare_jax.server import service as service_lib
from dare_jax.server.inference import protocol
from dare_jax.server.inference import tensors
from dare_jax.server.rpc import schema

_CODES = {
  400: grpc.StatusCode.INVALID_ARGUMENT,
  401: grpc.StatusCode.UNAUTHENTICATED,
  404: grpc.StatusCode.NOT_FOUND,
  413: grpc.StatusCode.RESOURCE_EXHAUSTED,
  429: grpc.StatusCode.RESOURCE_EXHAUSTED,
  503: grpc.StatusCode.UNAVAILABLE,
  504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# Health probes carry no token, and are answered while the server drains.
_OPEN = ('ServerLive', 'ServerReady')
# Where a tensor of a type has its values, unless they follow as bytes.
_CONTENTS = {
  'BYTES': 'bytes_contents',
  **dict.fromkeys(('INT8', 'INT16', 'INT32'), 'int_contents'),
  **dict.fromkeys(('UINT8', 'UINT16', 'UINT32'), 'uint_contents'),
  'INT64': 'int64_contents',
  'UINT64': 'uint64_contents',
}
# No bundle has so many fields.
_MOST_TENSORS = 1024


class Servicer:
  """Answers calls of the protocol from a service."""

  def __init__(
    self, service: service_lib.Service, token: str | None, log: logs.Log
  ) -> None:
    """Takes the arguments of `app.make`."""
    self._service, self._log = service, log
    self._token = None if token is None else f'Bearer {token}'.encode()
    self._messages = schema.messages()

  def handler(self) -> grpc.GenericRpcHandler:
    """Returns the handler that a gRPC server is given."""
    answer: Mapping[str, Callable[[Any], Awaitable[Any]]] = {
      'ServerLive': self._live,
      'ServerReady': self._ready,
      'ModelReady': self._model_ready,
      'ServerMetadata': self._server,
      'ModelMetadata': self._model,
      'ModelInfer': self._infer,
    }
    return grpc.method_handlers_generic_handler(
      schema.SERVICE,
      {
        name: grpc.unary_unary_rpc_method_handler(
          self._guarded(name, answer[name]),
          request_deserializer=self._messages[f'{name}Request'].FromString,
          response_serializer=lambda message: message.SerializeToString(),
        )
        for name in schema.METHODS
      },
    )

  def _guarded(
    self, method: str, answer: Callable[[Any], Awaitable[Any]]
  ) -> Callable[[Any, Any], Awaitable[Any]]:
    """Returns a call with token, errors, metrics and log around it."""

    async def call(request: Any, context: Any) -> Any:
      """Answers one request of the method."""
      begin = time.perf_counter()
      told = dict(context.invocation_metadata() or ())
      request_id = logs.request_id(_text(told.get('x-request-id')))
      status = 500
      try:
        self._check(method, told)
        made = await answer(request)
        status = 200
        return made
      except problems.Problem as problem:
        status = problem.status
        field = f'{problem.field}: ' if problem.field else ''
        await context.abort(
          _CODES.get(status, grpc.StatusCode.INTERNAL), field + problem.message
        )
      finally:
        self._tell(method, request_id, status, time.perf_counter() - begin)

    return call

  def _check(self, method: str, told: Mapping[str, Any]) -> None:
    if method in _OPEN:
      return
    given = str(told.get('authorization', '')).encode()
    if self._token is not None and not hmac.compare_digest(given, self._token):
      raise problems.Problem(
        401,
        'authorization',
        'expected "Bearer TOKEN" with the token of this server',
      )
    if self._service.draining:
      raise problems.later(503, 'this server is leaving; ask another')

  def _tell(
    self, method: str, request_id: str, status: int, seconds: float
  ) -> None:
    metrics, route = self._service.metrics, f'grpc_{method}'
    metrics.requests.labels(route, str(status)).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    version = self._service.main.known.bundle.version
    self._log(
      'request', request_id=request_id, method='gRPC', route=route,
      status=status, ms=round(seconds * 1e3, 3), version=version,
    )  # fmt: skip

  async def _live(self, unused: Any) -> Any:
    return self._messages['ServerLiveResponse'](live=True)

  async def _ready(self, unused: Any) -> Any:
    ready = self._service.is_ready
    return self._messages['ServerReadyResponse'](ready=ready)

  async def _model_ready(self, request: Any) -> Any:
    self._service.slot(request.name)
    ready = self._service.is_ready
    return self._messages['ModelReadyResponse'](ready=ready)

  async def _server(self, unused: Any) -> Any:
    return self._messages['ServerMetadataResponse'](
      **protocol.server_description()
    )

  async def _model(self, request: Any) -> Any:
    told = protocol.describe(self._service.slot(request.name))
    tensor = self._messages['ModelMetadataResponse.TensorMetadata']
    described = lambda some: [
      tensor(name=one.name, datatype=one.datatype, shape=one.shape)
      for one in some
    ]
    return self._messages['ModelMetadataResponse'](
      name=told.name,
      versions=told.versions,
      platform=told.platform,
      inputs=described(told.inputs),
      outputs=described(told.outputs),
    )

  async def _infer(self, request: Any) -> Any:
    served = self._service.slot(request.model_name).current()
    wanted = [one.name for one in request.outputs]

    def work() -> dict[str, np.ndarray]:
      with self._service.metrics.stage('parse'):
        inputs = read(request)
      return protocol.outputs(self._service.scorer, served, inputs, wanted)

    arrays = await self._service.run(self._service.scoring, work)
    answer = self._messages['ModelInferResponse'](
      model_name=served.bundle.name,
      model_version=served.bundle.version,
      id=request.id,
      raw_output_contents=[array.tobytes() for array in arrays.values()],
    )
    for name, array in arrays.items():
      answer.outputs.add(
        name=name, datatype=protocol.OUTPUTS[name], shape=array.shape
      )
    return answer


def read(request: Any) -> dict[str, Any]:
  """Returns name -> (shape, values) of the inputs of a `ModelInferRequest`.

  Raises:
    Problem: a tensor that has no values, too many, or of another type.
  """
  blobs = list(request.raw_input_contents)
  if len(request.inputs) > _MOST_TENSORS:
    raise problems.bad('inputs', f'expected at most {_MOST_TENSORS} tensors')
  if blobs and len(blobs) != len(request.inputs):
    raise problems.bad(
      'raw_input_contents',
      f'expected one for each of {len(request.inputs)} inputs, got'
      f' {len(blobs)}',
    )
  found = {}
  for place, tensor in enumerate(request.inputs):
    name = f'inputs.{tensor.name}'
    if blobs:
      values = tensors.binary(name, tensor.datatype, blobs[place])
    else:
      own = getattr(tensor.contents, _CONTENTS.get(tensor.datatype, ''), ())
      given = [_decoded(name, value) for value in own]
      values = tensors.plain(name, tensor.datatype, given)
    found[tensor.name] = tensors.shaped(name, list(tensor.shape), values)
  return found


def _decoded(name: str, value: Any) -> Any:
  if not isinstance(value, bytes):
    return value
  try:
    return value.decode()
  except UnicodeDecodeError:
    raise problems.bad(name, f'{value!r:.60} is not UTF-8') from None


def _text(value: Any) -> str | None:
  return value if isinstance(value, str) else None


class Server:
  """A server of gRPC in a running event loop.

  Attributes:
    port: the port at which it listens.
  """

  def __init__(
    self, servicer: Servicer, host: str, port: int, most_bytes: int
  ) -> None:
    """Takes the port; answers nothing yet.

    Args:
      servicer: the servicer that answers calls.
      host: the address to listen at.
      port: the port to listen at; 0 takes a free one.
      most_bytes: largest size of a request, in bytes.

    Raises:
      UsageError: the port is taken.
    """
    # Otherwise a second server could share the port, without an error.
    options = [
      ('grpc.so_reuseport', 0),
      ('grpc.max_receive_message_length', most_bytes),
    ]
    self._server = grpc.aio.server(options=options)
    self._server.add_generic_rpc_handlers((servicer.handler(),))
    name = f'[{host}]' if ':' in host else host
    try:
      self.port = self._server.add_insecure_port(f'{name}:{port}')
    except RuntimeError:
      raise errors.UsageError(
        f'--grpc_port={port}: it is taken, or {host} is no address of this'
        ' machine; expected a free port.'
      ) from None

  async def start(self) -> None:
    await self._server.start()

  async def stop(self, grace_s: float) -> None:
    """Takes no more calls, and finishes those that were begun."""
    await self._server.stop(grace_s)
