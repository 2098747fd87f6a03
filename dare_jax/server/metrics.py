"""The metrics that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from typing import Any

import prometheus_client

_SECONDS = (
  *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1),
  *(0.25, 0.5, 1.0, 2.5, 5.0),
)


class Metrics:
  """The counters of one server, in a registry of its own."""

  def __init__(self) -> None:
    self.registry = prometheus_client.CollectorRegistry()
    own: Any = {'registry': self.registry, 'namespace': 'dare'}
    self.requests = prometheus_client.Counter(
      'requests', 'Requests answered.', ['route', 'code'], **own
    )
    self.request_seconds = prometheus_client.Histogram(
      'request_seconds',
      'From the first byte of a request to the last of its answer.',
      ['route'],
      buckets=_SECONDS,
      **own,
    )
    self.stage_seconds = prometheus_client.Histogram(
      'stage_seconds',
      'Time of a stage: parse, queue, state, ids, score, answer.',
      ['stage'],
      buckets=_SECONDS,
      **own,
    )
    self.states = prometheus_client.Counter(
      'states',
      'States: hit, expanded (their keys were given up), appended to, encoded.',
      ['result'],
      **own,
    )
    self.unknown = prometheus_client.Counter(
      'unknown_values',
      'Values of candidates and histories that the bundle does not know.',
      ['side', 'field'],
      **own,
    )
    self.candidates = prometheus_client.Counter(
      'candidates', 'Candidates scored.', **own
    )
    self.events = prometheus_client.Counter(
      'events', 'Events: accepted, duplicates or expired.', ['result'], **own
    )
    self.batch_users = prometheus_client.Histogram(
      'batch_users',
      'Users in a call of the programs.',
      buckets=(1, 2, 4, 8, 16, 32),
      **own,
    )
    self.bundle = prometheus_client.Gauge(
      'bundle_info', 'The bundle that answers.', ['model', 'version'], **own
    )
    self.swaps = prometheus_client.Counter(
      'swaps', 'New bundles: taken or refused.', ['result'], **own
    )
    self._gauge('queue', 'Requests waiting or being answered.')
    self._gauge('cache_bytes', 'Bytes of cached states.')
    self._gauge('cache_users', 'Users with a cached state.')
    self._gauge('ready', '1 if new requests are taken.')

  def _gauge(self, name: str, about: str) -> None:
    gauge = prometheus_client.Gauge(
      name, about, registry=self.registry, namespace='dare'
    )
    setattr(self, f'_{name}', gauge)

  def watch(self, name: str, read: Callable[[], float]) -> None:
    """Has a gauge read when it is asked for."""
    getattr(self, f'_{name}').set_function(read)

  def stage(self, name: str) -> contextlib.AbstractContextManager[Any]:
    """Times a stage of a request."""
    return self.stage_seconds.labels(name).time()

  def text(self) -> bytes:
    return prometheus_client.generate_latest(self.registry)
