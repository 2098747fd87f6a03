"""Serves a bundle over HTTP.

    python -m dare_jax.serve --bundle=BUNDLE [--host=127.0.0.1] [--port=8080]
                             [--state=memory|sqlite:PATH|redis://HOST:6379/0]

Prints one line with its address once it takes requests. SIGTERM has it refuse
new ones, finish what it has begun, and exit 0. Beyond this machine, a token is
needed: --token_file, or the variable DARE_JAX_TOKEN. docs/serving.md tells the
requests.
"""

from __future__ import annotations

import importlib.util
import os

from absl import flags

from dare_jax import cli
from dare_jax import errors

_MIB = 1 << 20


def main() -> None:
  """Serves as the flags say."""
  if not _BUNDLE.value:
    raise errors.UsageError(
      '--bundle is missing: a folder written by python -m dare_jax.export.'
    )
  for module in ('starlette', 'uvicorn', 'msgspec', 'prometheus_client'):
    if importlib.util.find_spec(module) is None:
      raise errors.UsageError(
        f'{module} is not installed; {errors.install("serve")}.'
      )
  if _STATE.value.startswith('redis') and not importlib.util.find_spec('redis'):
    raise errors.UsageError(f'redis is missing; {errors.install("serve")}.')
  if _GRPC_PORT.value is not None and not importlib.util.find_spec('grpc'):
    raise errors.UsageError(
      f'--grpc_port: grpcio is not installed; {errors.install("grpc")}.'
    )
  _set_up_jax(_COMPILED.value)
  from dare_jax.bundle import reading
  from dare_jax.server import runner
  from dare_jax.server import service

  limits = service.Limits(
    max_body_bytes=int(_MAX_BODY_MIB.value * _MIB),
    max_queue=_MAX_QUEUE.value,
    time_limit_s=_TIME_LIMIT.value,
    max_candidates=_MAX_CANDIDATES.value,
    drain_s=_DRAIN.value,
    cache_bytes=int(_CACHE_MIB.value * _MIB),
    score_threads=_SCORE_THREADS.value,
    max_batch=_MAX_BATCH.value,
    batch_wait_s=_BATCH_WAIT_MS.value / 1e3,
  )
  options = runner.Options(
    bundle=_BUNDLE.value,
    beside=_BESIDE.value,
    host=_HOST.value,
    port=_PORT.value,
    grpc_port=_GRPC_PORT.value,
    state=_STATE.value,
    max_events=_MAX_EVENTS.value,
    token_file=_TOKEN_FILE.value,
    log_requests=_LOG_REQUESTS.value,
    watch_s=_WATCH.value,
    limits=limits,
  )
  runner.serve(options, reading.open)


def _set_up_jax(folder: str) -> None:
  """Sets what JAX has for a whole process, before anything runs.

  Args:
    folder: the folder in which compiled programs are kept for the next start;
      '' for none.
  """
  import jax

  # A request waits for its programs: so its thread had better run them than
  # wake another one.
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  if folder:
    path = os.path.expanduser(folder)
    jax.config.update('jax_compilation_cache_dir', path)
    # Most of a bundle's programs compile in less than JAX finds worth keeping.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


if __name__ == '__main__':
  _BUNDLE = flags.DEFINE_string(
    'bundle', None, 'Folder of a bundle, or a symlink to one.'
  )
  _BESIDE = flags.DEFINE_string(
    'beside', None, 'Bundle of another model, to compare with on the page.'
  )
  _HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen at.')
  _PORT = flags.DEFINE_integer(
    'port', 8080, 'Port; 0 takes a free one.', 0, 65535
  )
  _GRPC_PORT = flags.DEFINE_integer(
    'grpc_port', None, 'Port for gRPC as well; 0 takes a free one.', 0, 65535
  )
  _STATE = flags.DEFINE_string(
    'state', 'memory', 'Where events are kept: memory, sqlite:PATH, redis://..'
  )
  _MAX_EVENTS = flags.DEFINE_integer(
    'max_events',
    None,
    'Events kept of a user, the newest; default: what the model is shown,'
    ' 10,000 at least.',
    1,
  )
  _TOKEN_FILE = flags.DEFINE_string(
    'token_file', None, 'File that holds the token; or set DARE_JAX_TOKEN.'
  )
  _LOG_REQUESTS = flags.DEFINE_bool(
    'log_requests', True, 'Whether each request is a line of the log.'
  )
  _WATCH = flags.DEFINE_float(
    'watch_s', 2.0, 'How often to look for a new bundle, s; 0: never.', 0
  )
  _MAX_BODY_MIB = flags.DEFINE_float(
    'max_body_mib', 8, 'Largest body of a request; beyond it 413.'
  )
  _MAX_QUEUE = flags.DEFINE_integer(
    'max_queue', 64, 'Requests waiting or being answered; beyond it 429.'
  )
  _TIME_LIMIT = flags.DEFINE_float(
    'time_limit_s',
    5.0,
    'Longest time of a request, waiting included; beyond it 504.',
  )
  _MAX_CANDIDATES = flags.DEFINE_integer(
    'max_candidates', 5000, 'Most candidates of a request; beyond it 400.'
  )
  _DRAIN = flags.DEFINE_float(
    'drain_s', 5.0, 'After SIGTERM, how long new requests are told 503.'
  )
  _CACHE_MIB = flags.DEFINE_float('cache_mib', 1024, 'Memory of cached states.')
  _SCORE_THREADS = flags.DEFINE_integer(
    'score_threads', 2, 'Requests scored at a time.'
  )
  _MAX_BATCH = flags.DEFINE_integer(
    'max_batch', 1, 'Users in one call of the programs; 1: no batches.'
  )
  _COMPILED = flags.DEFINE_string(
    'compilation_cache',
    '~/.cache/dare_jax/compiled',
    'Folder of compiled programs, for the next start; empty: none.',
  )
  _BATCH_WAIT_MS = flags.DEFINE_float(
    'batch_wait_ms',
    2.0,
    'How long the first request of a batch waits for others.',
  )
  cli.run(main)
