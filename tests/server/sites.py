"""A server in the process of a test, and what is asked of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from starlette import testclient

from dare_jax.server import service as service_lib
from dare_jax.server import stores
from dare_jax.server.http import app
from tests.server import double as double_lib

LIMITS = service_lib.Limits(max_candidates=50, max_body_bytes=20_000)
URL = 'http://127.0.0.1'


@dataclasses.dataclass
class Site:
  """A server in this process: what it answers from, and a client."""

  bundle: double_lib.Double
  service: service_lib.Service
  client: testclient.TestClient
  log: list[dict[str, Any]]

  def error(self, status: int, answer: Any) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {'error'}
    return answer.json()['error']


def open_site(
  bundle: double_lib.Double | None = None,
  token: str | None = None,
  limits: service_lib.Limits = LIMITS,
  is_ready: bool = True,
  beside: double_lib.Double | None = None,
  store: stores.Store | None = None,
) -> Site:
  bundle = bundle or double_lib.Double()
  bundles = [bundle] if beside is None else [bundle, beside]
  store = store or stores.open_store('memory', 100)
  service = service_lib.Service(bundles, store, limits)
  for slot in service.slots.values():
    if is_ready:
      service.take(slot.loading)
  log: list[dict[str, Any]] = []
  made = app.make(
    service, token, lambda event, **told: log.append({'event': event, **told})
  )
  client = testclient.TestClient(
    made, base_url=URL, raise_server_exceptions=False
  )
  return Site(bundle, service, client, log)


def history(length: int = 6) -> list[dict[str, Any]]:
  return [
    {'item': f'i{n}', 'category': f'c{n % 2}', 'time': 100 + n}
    for n in range(length)
  ]


CANDIDATES = [
  {'item': 'i50', 'category': 'c0'},
  {'item': 'i60', 'category': 'c1'},
  {'item': 'never', 'category': 'c1'},
]


def events(rows: list[dict[str, Any]], start: int = 0) -> dict[str, Any]:
  return {
    'events': [
      {'event_id': f'e{start + n}', **row} for n, row in enumerate(rows)
    ]
  }


def expected(
  bundle: double_lib.Double, rows: list[dict[str, Any]]
) -> np.ndarray:
  past = {f: bundle.ids(f, [row[f] for row in rows]) for f in bundle.fields}
  asked = {
    f: bundle.ids(f, [row[f] for row in CANDIDATES]) for f in bundle.fields
  }
  return bundle.score([past], [asked], None)[0].logit


def logits(answer: Any) -> list[float]:
  assert answer.status_code == 200, answer.text
  return [one['logit'] for one in answer.json()['scores']]
