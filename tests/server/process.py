"""A server in a process of its own, as tests and the campaign start it."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import httpx2 as httpx

_SECONDS = 60.0
ROOT = pathlib.Path(__file__).parents[2]
DOUBLE, REAL = 'tests.server.double', 'dare_jax.serve'


class Server:
  """A running server; `url` is where it answers.

  Args:
    bundle: path of its bundle.
    flags: further flags of the command.
    module: `DOUBLE` serves the double of a bundle.
  """

  def __init__(
    self, bundle: pathlib.Path, *flags: str, module: str = DOUBLE
  ) -> None:
    self.process = subprocess.Popen(
      [sys.executable, '-m', module, f'--bundle={bundle}', '--port=0', *flags],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )
    self.log: list[str] = []
    assert self.process.stderr is not None
    self._reader = threading.Thread(
      target=lambda: self.log.extend(self.process.stderr or []), daemon=True
    )
    self._reader.start()
    assert self.process.stdout is not None
    self.line = self.process.stdout.readline()
    found = re.search(r'http://\S+', self.line)
    if found is None:
      self.process.wait(_SECONDS)
      self._reader.join()
      raise AssertionError(f'did not start: {"".join(self.log)}')
    self.url = found[0]
    self.client = httpx.Client(base_url=self.url, timeout=_SECONDS)

  def wait(self) -> int:
    return self.process.wait(_SECONDS)

  def kill(self) -> None:
    """Kills it with SIGKILL."""
    self.process.kill()
    self.wait()
    self.client.close()

  def send(self, number: signal.Signals) -> None:
    self.process.send_signal(number)

  def __enter__(self) -> Server:
    return self

  def __exit__(self, *unused: Any) -> None:
    self.kill()
    self._reader.join()
    assert self.process.stdout is not None
    assert self.process.stderr is not None
    self.process.stdout.close()
    self.process.stderr.close()


@contextlib.contextmanager
def redis_server(folder: pathlib.Path) -> Any:
  """A Redis of its own that syncs before it answers; None: not installed."""
  program = shutil.which('redis-server')
  if program is None:
    yield None
    return
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  options = ['--appendonly', 'yes', '--appendfsync', 'always', '--save', '']
  process = subprocess.Popen(
    [program, '--port', str(port), '--dir', str(folder), *options],
    stdout=subprocess.DEVNULL,
  )
  try:
    _wait_for(port)
    yield f'redis://127.0.0.1:{port}/0'
  finally:
    process.terminate()
    process.wait()


def _wait_for(port: int) -> None:
  deadline = time.monotonic() + _SECONDS
  while time.monotonic() < deadline:
    with socket.socket() as probe:
      if probe.connect_ex(('127.0.0.1', port)) == 0:
        return
    time.sleep(0.02)
  raise AssertionError('redis-server did not start')
