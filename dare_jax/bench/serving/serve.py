"""A server under load: latency, throughput, CPU, memory, and where time goes.

    python -m dare_jax.bench serve [--bundle=BUNDLE] [--figure=PNG]

Starts `python -m dare_jax.serve` and gives it users with histories. Then
requests of users drawn by Zipf's law leave at times of a Poisson process,
whether or not those before were answered; latency counts from when a request
was due. Each case is first asked once for every user while no history is
encoded (cold), then at each of --rates (warm). Without --bundle one is made
from a made log. Server and load share the machine.

Beside it, with --torch, the same requests go to the same server over plain
PyTorch, a model that reads the whole history for each request. Both must give
the same logits.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import tempfile
from typing import Any
import urllib.request

from absl import flags
import numpy as np

from dare_jax import errors
from dare_jax import plots
from dare_jax.bench.serving import figure
from dare_jax.bench.serving import load
from dare_jax.bench.serving import plain
from dare_jax.bench.serving import server_process
from dare_jax.bench.serving import traffic

STAGES = ('queue', 'parse', 'state', 'ids', 'score', 'answer')
_SIDES = {'dare_jax': server_process.OURS, 'torch': server_process.PLAIN}
_HISTORIES = (200, 50_000)
_CANDIDATES = (1, 1_000)
# Of logits that two libraries sum in another order.
_CLOSE = 1e-3


@dataclasses.dataclass(frozen=True)
class Options:
  """How servers are measured.

  Attributes:
    cases: the kinds of requests.
    rates: the rates to measure, in requests a second.
    seconds: how long each rate is held.
    users: number of users of each case.
    rounds: how often each rate is measured; the sides take turns.
    flags: further flags of the servers.
    seed: seed of the users, requests and due times that are drawn.
  """

  cases: Sequence[traffic.Case]
  rates: Sequence[float]
  seconds: float = 10.0
  users: int = 64
  rounds: int = 1
  flags: Sequence[str] = ()
  seed: int = 0


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  bundle = flags.DEFINE_string(
    'bundle', None, 'Folder of a bundle; None: one is made.'
  )
  items = flags.DEFINE_integer(
    'items', 200_000, 'Items of the log that is made.', 1_000
  )
  cases = flags.DEFINE_list(
    'cases', ['20x200', '500x10000', 'mixed'],
    'CANDIDATESxBEHAVIORS, or mixed: 1 to 1,000 by 200 to 50,000, or what the'
    ' bundle is shown.',
  )  # fmt: skip
  rates = flags.DEFINE_list(
    'rates', ['5', '20', '40'], 'Rates to measure, in requests a second.'
  )
  seconds = flags.DEFINE_float(
    'seconds', 10.0, 'How long each rate is held, s.', 0.1
  )
  users = flags.DEFINE_integer('users', 64, 'Users of each case.', 1)
  rounds = flags.DEFINE_integer('rounds', 1, 'Turns at each rate.', 1)
  with_torch = flags.DEFINE_bool(
    'torch', False, 'Measure a server of plain PyTorch as well.'
  )
  server_flags = flags.DEFINE_list(
    'server_flags', [], 'Further flags of the server: --state=sqlite:PATH,..'
  )
  drawn = flags.DEFINE_string(
    'figure', None, 'Draw latency against load into this PNG.'
  )

  def measure_all() -> list[dict[str, Any]]:
    """Returns the rows of each bundle under the load that the flags ask for."""
    if drawn.value:
      plots.require('--figure')
    numbers = parse_rates(rates.value)
    with tempfile.TemporaryDirectory() as name:
      path = bundle.value
      if path is None:
        path = _made(pathlib.Path(name), items.value)
      opened = _opened(path)
      most = traffic.Case(
        _CANDIDATES,
        (min(_HISTORIES[0], opened.history_length),
         min(_HISTORIES[1], opened.history_length)),
      )  # fmt: skip
      options = Options(
        traffic.parse(cases.value, most), numbers, seconds.value,
        users.value, rounds.value, server_flags.value,
      )  # fmt: skip
      sides = [*_SIDES] if with_torch.value else [*_SIDES][:1]
      rows = measure(opened, options, sides)
    if drawn.value:
      figure.draw(rows, pathlib.Path(drawn.value))
    return rows

  return measure_all


def parse_rates(values: Sequence[str]) -> list[float]:
  """Returns the numbers of --rates.

  Raises:
    UsageError: none, or one that is not above 0.
  """
  try:
    numbers = [float(value) for value in values]
  except ValueError:
    numbers = []
  if not numbers or not all(0 < number < np.inf for number in numbers):
    raise errors.UsageError(
      f'--rates={",".join(values)}: expected numbers above 0, requests a'
      ' second.'
    )
  return numbers


def _made(folder: pathlib.Path, items: int) -> str:
  from dare_jax.bench.serving import made  # Imports what trains.

  return made.write(folder, items, _HISTORIES[1])


def _opened(path: str) -> Any:
  from dare_jax.bundle import reading

  return reading.open(path)


def measure(
  bundle: Any, options: Options, sides: Sequence[str]
) -> list[dict[str, Any]]:
  """Returns a row for each side, case, and turn.

  Args:
    bundle: the bundle that is served, opened.
    options: the load to measure under.
    sides: the servers to measure: 'dare_jax', 'torch' or both.

  Raises:
    UsageError: a server did not start, or they disagree.
  """
  if 'torch' in sides:
    plain.check(bundle.manifest)
  rows = []
  for case in options.cases:
    traffics = {
      side: traffic.Traffic(bundle, case, options.users, options.seed)
      for side in sides
    }
    logits = {}
    for side in sides:
      with server_process.ServerProcess(
        _SIDES[side], str(bundle.path), ['--max_queue=4096', *options.flags]
      ) as server:
        of_side = _Side(side, case, server, traffics[side], options)
        rows += of_side.rows()
        logits[side] = of_side.logits()
    _check_alike(case, logits)
  return rows


class _Side:
  """One server with the users of one case."""

  def __init__(
    self,
    name: str,
    case: traffic.Case,
    server: server_process.ServerProcess,
    own: traffic.Traffic,
    options: Options,
  ) -> None:
    self._name, self._case, self._server = name, case, server
    self._traffic, self._options = own, options
    self._rng = np.random.default_rng(options.seed)

  def rows(self) -> list[dict[str, Any]]:
    """Gives the users their histories, and measures."""
    for request in self._traffic.events():
      # One after the other: this is no load.
      filled = load.run(self._server.port, [request], np.zeros(1))
      if filled.failed:
        raise errors.UsageError(
          'a user could not be given events: the server answered with status'
          f' {filled.status[0]}; see --server_flags.'
        )
    options = self._options
    requests = self._traffic.of_each()
    self._first = requests[0]
    rows = [self._row('cold', options.rates[0], requests)]
    for _ in range(options.rounds):
      for rate in options.rates:
        count = max(1, round(rate * options.seconds))
        rows.append(self._row('warm', rate, self._traffic.some(count)))
    return rows

  def logits(self) -> np.ndarray:
    """Returns the answer to the first request."""
    _, _, body = self._first.partition(b'\r\n\r\n')
    asked = urllib.request.Request(
      f'http://127.0.0.1:{self._server.port}/score',
      body,
      {'Content-Type': 'application/json'},
    )
    with urllib.request.urlopen(asked) as answer:
      scores = json.load(answer)['scores']
    return np.array([one['logit'] for one in scores])

  def _row(
    self, phase: str, rate: float, requests: Sequence[bytes]
  ) -> dict[str, Any]:
    due = load.schedule(rate, len(requests), self._rng)
    before = self._server.read()
    found = load.run(self._server.port, requests, due)
    after = self._server.read()
    held, most = self._server.memory_mb()
    count = len(requests)
    p50, p95, p99 = np.percentile(1e3 * found.latency_s, [50, 95, 99]).tolist()
    stages = {
      f'{stage}_ms': 1e3
      * (after.stage_s.get(stage, 0.0) - before.stage_s.get(stage, 0.0))
      / count
      for stage in STAGES
    }
    return {
      'side': self._name,
      'case': str(self._case),
      'phase': phase,
      'offered_per_s': rate,
      'answered_per_s': (count - found.failed) / found.seconds,
      'requests': count,
      'failed': found.failed,
      'p50_ms': p50,
      'p95_ms': p95,
      'p99_ms': p99,
      'least_ms': 1e3 * float(found.latency_s.min()),
      'cpu_ms': 1e3 * (after.cpu_s - before.cpu_s) / count,
      **stages,
      'rss_mb': held,
      'peak_rss_mb': most,
      'cache_mb': after.cache_bytes / 1e6,
      'start_s': self._server.start_s,
    }


def _check_alike(case: traffic.Case, logits: dict[str, np.ndarray]) -> None:
  """Checks that all sides answered the same.

  Raises:
    UsageError: they did not, so that their times say nothing.
  """
  first, *others = logits.values()
  for other in others:
    gap = float(np.max(np.abs(other - first)))
    if gap > _CLOSE * max(1.0, float(np.max(np.abs(first)))):
      raise errors.UsageError(
        f'case {case}: the logits of {" and ".join(logits)} differ by'
        f' {gap:.3g}: the plain model is not that of the bundle; leave it out'
        ' with --notorch.'
      )
