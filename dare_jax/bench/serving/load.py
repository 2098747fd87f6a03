"""Open-loop load over HTTP: requests leave when they are due, answered or not.

Latency counts from the time at which a request was due, so that a server that
stalls is charged for all that had to wait (what closed loops leave out).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
import contextlib
import dataclasses
import time

import numpy as np

_HEAD_END = b'\r\n\r\n'
_CONNECTIONS = 256  # beyond it requests wait for one, and that counts, too


@dataclasses.dataclass(frozen=True)
class Answered:
  """What became of requests, in their order.

  Attributes:
    latency_s: float64 [n], seconds from the time at which each request was due
      to the end of its answer.
    status: int64 [n], the HTTP status of each answer; 0 where the connection
      failed.
    seconds: time from the first due request to the last answer.
  """

  latency_s: np.ndarray
  status: np.ndarray
  seconds: float

  @property
  def failed(self) -> int:
    return int(np.sum(self.status != 200))


def schedule(rate: float, count: int, rng: np.random.Generator) -> np.ndarray:
  """Returns the times of `count` Poisson arrivals, s: float64 [n].

  >>> times = schedule(100.0, 10_000, np.random.default_rng(0))
  >>> bool((np.diff(times) >= 0).all()), bool(97 < times[-1] < 103)
  (True, True)
  """
  return np.cumsum(rng.exponential(1 / rate, count))


def post(path: str, body: bytes) -> bytes:
  """Returns a request as it goes over the wire."""
  head = (
    f'POST {path} HTTP/1.1\r\nHost: localhost\r\n'
    f'Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n'
  )
  return head.encode() + body


def run(
  port: int, requests: Sequence[bytes], due: np.ndarray, limit_s: float = 60.0
) -> Answered:
  """Sends requests to this machine when they are due; waits for all answers.

  Args:
    port: the port of the server on this machine.
    requests: whole HTTP requests, as `post` makes them.
    due: float64 [n], seconds from now at which each request is sent, ascending.
    limit_s: seconds within which an answer must come; a later one counts as
      failed.
  """
  return asyncio.run(_Run(port, limit_s).all(requests, due))


class _Run:
  def __init__(self, port: int, limit_s: float) -> None:
    self._port, self._limit_s = port, limit_s
    self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    self._places = asyncio.Semaphore(_CONNECTIONS)

  async def all(self, requests: Sequence[bytes], due: np.ndarray) -> Answered:
    """Returns how requests were answered, each sent when it is due."""
    begin = time.perf_counter() + 0.01
    latency = np.zeros(len(requests))
    status = np.zeros(len(requests), np.int64)

    async def one(place: int) -> None:
      with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
        status[place] = await asyncio.wait_for(
          self._ask(requests[place]), self._limit_s
        )
      latency[place] = time.perf_counter() - begin - due[place]

    async with asyncio.TaskGroup() as tasks:
      for place, when in enumerate(due):
        left = begin + when - time.perf_counter()
        if left > 0:
          await asyncio.sleep(left)
        tasks.create_task(one(place))
    seconds = time.perf_counter() - begin - due[0]
    for _, writer in self._idle:
      writer.close()
      with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Answered(latency, status, seconds)

  async def _ask(self, request: bytes) -> int:
    """Returns the status of the answer."""
    async with self._places:
      if self._idle:
        reader, writer = self._idle.pop()
      else:
        reader, writer = await asyncio.open_connection('127.0.0.1', self._port)
      try:
        writer.write(request)
        head = await reader.readuntil(_HEAD_END)
        lines = head.lower().split(b'\r\n')
        sizes = [x for x in lines if x.startswith(b'content-length:')]
        await reader.readexactly(int(sizes[0].partition(b':')[2]))
      except BaseException:
        writer.close()
        raise
      self._idle.append((reader, writer))
      return int(lines[0].split()[1])
