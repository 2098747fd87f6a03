"""A server in a process of its own, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from typing import Any
import urllib.request

from dare_jax import errors

OURS, PLAIN = 'dare_jax.serve', 'dare_jax.bench.serving.plain'
_LEAVE_SECONDS = 20.0
_SAMPLE = re.compile(r'^(dare_\w+?)(?:\{(.*?)\})? ([0-9.e+-]+)$', re.MULTILINE)
_STAGE = re.compile(r'stage="(\w+)"')


@dataclasses.dataclass(frozen=True)
class Reading:
  """What a server has used until now.

  Attributes:
    cpu_s: CPU seconds of all its threads.
    stage_s: stage -> seconds, of all requests.
    cache_bytes: bytes of the encoded histories that it holds.
  """

  cpu_s: float
  stage_s: Mapping[str, float]
  cache_bytes: float


class ServerProcess:
  """A running server.

  Attributes:
    port: the port at which it answers.
    start_s: seconds from its start until it took requests.
  """

  def __init__(self, module: str, bundle: str, flags: Sequence[str]) -> None:
    """Starts it and waits until it takes requests.

    Args:
      module: the module to run, `OURS` or `PLAIN`.
      bundle: the folder of the bundle.
      flags: further flags of `dare_jax.serve`.

    Raises:
      UsageError: it did not start.
    """
    begin = time.perf_counter()
    self._process = subprocess.Popen(
      [
        *(sys.executable, '-m', module, f'--bundle={bundle}', '--port=0'),
        *('--nolog_requests', '--watch_s=0', '--drain_s=0', *flags),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    assert self._process.stdout is not None
    self._log: list[str] = []
    self._reader = threading.Thread(
      target=lambda: self._log.extend(self._process.stderr or []), daemon=True
    )
    self._reader.start()
    line = self._process.stdout.readline()
    self.start_s = time.perf_counter() - begin
    found = re.search(r'http://\S+:(\d+)', line)
    if found is None:
      self._process.wait()
      self._reader.join()
      told = ' '.join(self._log[-1:]).strip() or 'it said nothing'
      raise errors.UsageError(f'the server did not start: {told}')
    self.port = int(found[1])

  def __enter__(self) -> ServerProcess:
    return self

  def __exit__(self, *unused: Any) -> None:
    self._process.terminate()
    try:
      self._process.wait(_LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._reader.join()
    for stream in (self._process.stdout, self._process.stderr):
      assert stream is not None
      stream.close()

  def read(self) -> Reading:
    """Returns what it has used until now."""
    stat = pathlib.Path(f'/proc/{self._process.pid}/stat').read_text()
    user, system = stat.rpartition(')')[2].split()[11:13]
    ticks = int(user) + int(system)
    url = f'http://127.0.0.1:{self.port}/metrics'
    with urllib.request.urlopen(url) as answer:
      text = answer.read().decode()
    stages, cache = {}, 0.0
    for name, labels, value in _SAMPLE.findall(text):
      if name == 'dare_stage_seconds_sum':
        stage = _STAGE.search(labels)
        assert stage is not None
        stages[stage[1]] = float(value)
      if name == 'dare_cache_bytes':
        cache = float(value)
    return Reading(ticks / os.sysconf('SC_CLK_TCK'), stages, cache)

  def memory_mb(self) -> tuple[float, float]:
    """Returns the memory that it holds, and the most that it has held."""
    status = pathlib.Path(f'/proc/{self._process.pid}/status').read_text()
    held = [
      int(status.split(f'{name}:')[1].split()[0]) * 1024 / 1e6
      for name in ('VmRSS', 'VmHWM')
    ]
    return held[0], held[1]
