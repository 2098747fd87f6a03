"""One server from its start to its end: socket, compilation, signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import ipaddress
import os
import pathlib
import signal
import socket
import sys
import threading
from typing import Any

import uvicorn

from dare_jax import errors
from dare_jax.process import signals
from dare_jax.server import logs
from dare_jax.server import service as service_lib
from dare_jax.server import stores
from dare_jax.server import swap
from dare_jax.server.http import app as app_lib

TOKEN_VARIABLE = 'DARE_JAX_TOKEN'
_BACKLOG = 2048
# Longer than load balancers keep a connection that is idle: if it were closed
# here first, a request on its way would find it gone.
_KEEP_ALIVE_SECONDS = 75
_FEWEST_CHARACTERS = 16
# A request waits for Python's lock while another is worked on; by default 5 ms.
_SWITCH_SECONDS = 0.0005


@dataclasses.dataclass(frozen=True)
class Options:
  """What a server is started with.

  Attributes:
    bundle: path of the bundle.
    beside: path of a bundle of another model over the same fields, or None.
    grpc_port: the port for gRPC; 0 takes a free one, None: there is no gRPC.
    host, port: the address and port to listen at; port 0 takes a free one.
    state: the store of users' events, as `stores.open_store` reads it.
    max_events: kept of a user; None: what the model is shown, 10,000 at least.
    token_file: holds the token; None: the variable DARE_JAX_TOKEN, if set.
    log_requests: whether each request is a line of the log.
    watch_s: how often to look for a new bundle; 0: never.
    limits: the limits of requests, of the cache and of batches.
  """

  bundle: str
  host: str = '127.0.0.1'
  port: int = 8080
  state: str = 'memory'
  max_events: int | None = None
  token_file: str | None = None
  log_requests: bool = True
  watch_s: float = 2.0
  limits: service_lib.Limits = service_lib.Limits()
  beside: str | None = None
  grpc_port: int | None = None


def serve(options: Options, open_bundle: Callable[[str], Any]) -> None:
  """Serves until a signal ends it.

  The first SIGTERM, or Ctrl-C, has new requests refused with 503 for
  `limits.drain_s`, or not at all, and what was begun finished.

  Raises:
    UsageError: no bundle, store, token or address as the options say.
    Interrupted: a signal came before the programs were compiled.
  """
  token = find_token(options)
  listening = _listen(options.host, options.port)
  paths = [path for path in (options.bundle, options.beside) if path]
  bundles = [open_bundle(path) for path in paths]
  check_beside(bundles)
  longest = max(bundle.history_length for bundle in bundles)
  max_events = options.max_events or max(longest, 10_000)
  store = stores.open_store(options.state, max_events)
  for bundle in bundles:
    if reason := swap.too_long(bundle, store):
      raise errors.UsageError(reason)
  limits = options.limits
  service = service_lib.Service(bundles, store, limits)
  log = logs.write if options.log_requests else logs.silent
  sys.setswitchinterval(_SWITCH_SECONDS)
  config = uvicorn.Config(
    app_lib.make(service, token, log),
    log_config=None,
    access_log=False,
    lifespan='off',
    server_header=False,
    backlog=_BACKLOG,
    timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    timeout_graceful_shutdown=int(limits.time_limit_s) + 1,
  )
  host = f'[{options.host}]' if ':' in options.host else options.host
  address = f'http://{host}:{listening.getsockname()[1]}'
  swappers = [
    swap.Swapper(path, bundle.name, service, open_bundle, options.watch_s)
    for path, bundle in zip(paths, bundles, strict=True)
  ]
  calls = None
  if options.grpc_port is not None:
    calls = lambda: _grpc_server(options, service, token, log)
  server = _Server(config, service, swappers, address, calls)
  try:
    asyncio.run(server.serve([listening]))
  finally:
    for swapper in swappers:
      swapper.stop()
    service.close()
  if server.failure is not None:
    raise server.failure
  # A thread that compiles cannot be stopped; Python would abort at exit.
  if server.stopped_early is not None:
    raise errors.Interrupted(server.stopped_early)
  if any(swapper.is_busy for swapper in swappers):
    signals.leave('left while a new bundle was being compiled', 0)


class _Server(uvicorn.Server):
  """uvicorn with the signals of this project, and a start that compiles."""

  def __init__(
    self,
    config: uvicorn.Config,
    service: service_lib.Service,
    swappers: Sequence[swap.Swapper],
    address: str,
    grpc_server: Callable[[], Any] | None,
  ) -> None:
    super().__init__(config)
    self._make_grpc, self._grpc = grpc_server, None
    self._service, self._swappers = service, swappers
    self._address = address
    self.failure: BaseException | None = None
    self.stopped_early: int | None = None

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    """Takes the signals over, by the rule of all commands."""
    loop = asyncio.get_running_loop()

    def ask(number: int) -> None:
      loop.call_soon_threadsafe(self._drain, number)

    if self._make_grpc is not None:
      self._grpc = self._make_grpc()
    signals.install(ask)
    signals.watch()
    yield

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    await super().startup(sockets)
    if self._grpc is not None:
      await self._grpc.start()
    # Only once it listens, since this prints that it is ready.
    threading.Thread(target=self._prepare, name='compile', daemon=True).start()

  async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
    if self._grpc is not None:
      await self._grpc.stop(self._service.limits.time_limit_s)
    await super().shutdown(sockets)

  def _prepare(self) -> None:
    """Compiles, then takes requests."""
    loading = [slot.loading for slot in self._service.slots.values()]
    try:
      for served in loading:
        served.bundle.warm_up()
    except BaseException as error:
      self.failure, self.should_exit = error, True
      return
    if self._service.draining:
      return
    for served in loading:
      self._service.take(served)
    for swapper in self._swappers:
      swapper.start()
    names = [f'{one.bundle.name} {one.bundle.version}' for one in loading]
    where = self._address
    if self._grpc is not None:
      where += f' and for gRPC at port {self._grpc.port}'
    print(f'serving {" and ".join(names)} at {where}', flush=True)

  def _drain(self, number: int) -> None:
    """Refuses new requests, and leaves after a while."""
    if self._service.draining:
      return
    self._service.draining = True
    name = signal.Signals(number).name
    if self._service.main.served is None:
      self.stopped_early = number
    at_once = number == signal.SIGINT or self.stopped_early is not None
    seconds = 0.0 if at_once else self._service.limits.drain_s
    logs.write('draining', signal=name, seconds=seconds)
    asyncio.get_running_loop().call_later(seconds, self._leave)

  def _leave(self) -> None:
    self.should_exit = True


def _grpc_server(
  options: Options,
  service: service_lib.Service,
  token: str | None,
  log: logs.Log,
) -> Any:
  from dare_jax.server.rpc import servicer  # gRPC is an extra of its own.

  return servicer.Server(
    servicer.Servicer(service, token, log),
    options.host,
    options.grpc_port or 0,
    service.limits.max_body_bytes,
  )


def check_beside(bundles: Sequence[Any]) -> None:
  """Checks that bundles can answer the same requests, under their names.

  Raises:
    UsageError: they cannot.
  """
  first = bundles[0]
  for other in bundles[1:]:
    if len({first.times, other.times} - {None}) > 1:
      raise errors.UsageError(
        '--beside: its model and that of --bundle read times of other units;'
        ' expected models of one log.'
      )
    if other.name == first.name:
      raise errors.UsageError(
        f'--beside: its model is named {other.name}, as that of --bundle;'
        ' expected another model.'
      )
    for what in ('fields', 'context_fields'):
      if getattr(other, what) != getattr(first, what):
        raise errors.UsageError(
          f'--beside: its {what.replace("_", " ")} are'
          f' {", ".join(getattr(other, what))}; expected those of --bundle,'
          f' {", ".join(getattr(first, what))}.'
        )


def find_token(options: Options) -> str | None:
  """Returns the token that requests must carry, None where none need.

  Raises:
    UsageError: an address that others reach and no token, or a token that is
      no secret.
  """
  where = TOKEN_VARIABLE
  token = os.environ.get(TOKEN_VARIABLE)
  if options.token_file is not None:
    where = f'--token_file={options.token_file}'
    try:
      token = pathlib.Path(options.token_file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
      raise errors.UsageError(f'{where}: {error}') from None
  if token is None:
    if is_loopback(options.host):
      return None
    raise errors.UsageError(
      f'--host={options.host}: others reach this address, so a token is'
      f' needed: give --token_file=FILE, or set {TOKEN_VARIABLE}.'
    )
  if len(token) < _FEWEST_CHARACTERS or not token.isascii():
    raise errors.UsageError(
      f'{where}: expected at least {_FEWEST_CHARACTERS} characters of ASCII, as'
      ' `openssl rand -hex 32` makes them.'
    )
  return token


def is_loopback(host: str) -> bool:
  """Returns whether only this machine reaches an address."""
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def _listen(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  # With its protocol named, asyncio sends at once, not when it is acknowledged.
  listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
  listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listening.bind((host, port))
  except (OSError, OverflowError) as error:
    listening.close()
    raise errors.UsageError(
      f'--host={host} --port={port}: {error}; expected an address of this'
      ' machine and a free port.'
    ) from None
  return listening
