"""Limits, health, the token, metrics and the log."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import Any

import numpy as np

from dare_jax.server import stores
from tests.server import double as double_lib
from tests.server import sites


def test_limits_of_size_and_kind(site):
  large = {'history': sites.history(2000), 'candidates': sites.CANDIDATES}
  site.error(413, site.client.post('/score', json=large))

  def parts():
    for _ in range(30):
      yield b' ' * 1000

  kind = {'Content-Type': 'application/json'}
  chunked = site.client.post('/score', content=parts(), headers=kind)
  site.error(413, chunked)
  form = site.client.post('/score', content='{}')
  assert site.error(415, form)['field'] == 'Content-Type'
  site.error(404, site.client.get('/no/such'))
  site.error(405, site.client.get('/score'))
  assert (
    site.client.get('/', headers={'Host': 'evil.example'}).status_code == 400
  )


def _in_background(site: sites.Site, count: int, body: Any) -> list[Any]:
  answers: list[Any] = []

  def ask():
    answers.append(site.client.post('/score', json=body))

  threads = [threading.Thread(target=ask) for _ in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return answers


def test_a_full_queue_says_when_to_come_again():
  limits = dataclasses.replace(sites.LIMITS, max_queue=2)
  site = sites.open_site(double_lib.Double(delay_s=0.3), limits=limits)
  body = {'history': sites.history(), 'candidates': sites.CANDIDATES}
  with site.client:
    answers = _in_background(site, 4, body)
  statuses = sorted(one.status_code for one in answers)
  assert statuses == [200, 200, 429, 429]
  refused = next(one for one in answers if one.status_code == 429)
  assert int(refused.headers['retry-after']) > 0
  site.service.close()


def test_what_takes_too_long_is_given_up():
  limits = dataclasses.replace(sites.LIMITS, time_limit_s=0.1, score_threads=1)
  site = sites.open_site(double_lib.Double(delay_s=0.3), limits=limits)
  body = {'history': sites.history(), 'candidates': sites.CANDIDATES}
  with site.client:
    answers = _in_background(site, 3, body)
  for answer in answers:
    site.error(504, answer)
  site.service.close()
  # Those that waited beyond their time were not worked on.
  assert site.bundle.calls == 1


def test_users_share_a_call():
  limits = dataclasses.replace(sites.LIMITS, max_batch=4, batch_wait_s=0.5)
  site = sites.open_site(limits=limits)
  bodies = [
    {'history': sites.history(length), 'candidates': sites.CANDIDATES}
    for length in (2, 3, 5, 8)
  ]
  found: dict[int, list[float]] = {}

  def ask(place: int) -> None:
    found[place] = sites.logits(site.client.post('/score', json=bodies[place]))

  with site.client:
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert site.bundle.calls == 1
  for place, body in enumerate(bodies):
    np.testing.assert_array_equal(
      np.float32(found[place]), sites.expected(site.bundle, body['history'])
    )
  site.service.close()


def test_a_store_that_fails_is_told(site, monkeypatch):
  def fail(*unused):
    raise stores.StoreError('the disk is full')

  monkeypatch.setattr(site.service.store, 'append', fail)
  answer = site.client.post(
    '/users/u/events', json=sites.events(sites.history())
  )
  assert 'disk is full' in site.error(503, answer)['message']


def test_an_unexpected_error_is_one_of_the_server(site, monkeypatch):
  monkeypatch.setattr(site.bundle, 'score', lambda *a, **k: 1 / 0)
  body = {'history': sites.history(), 'candidates': sites.CANDIDATES}
  error = site.error(500, site.client.post('/score', json=body))
  assert site.log[-1]['request_id'] in error['message']
  assert 'division' not in error['message']


def test_health_before_ready_and_while_leaving():
  site = sites.open_site(is_ready=False)
  get = site.client.get
  body = {'history': sites.history(), 'candidates': sites.CANDIDATES}
  assert get('/v2/health/live').status_code == 200
  site.error(503, get('/v2/health/ready'))
  site.error(503, get('/v2/models/double/ready'))
  site.error(503, site.client.post('/score', json=body))
  site.service.take(site.service.main.loading)
  assert get('/v2/health/ready').status_code == 200
  assert site.client.post('/score', json=body).status_code == 200
  site.service.draining = True
  assert get('/v2/health/live').status_code == 200
  site.error(503, get('/v2/health/ready'))
  refused = site.client.post('/score', json=body)
  site.error(503, refused)
  assert refused.headers['connection'] == 'close'
  assert int(refused.headers['retry-after']) > 0
  assert get('/metrics').status_code == 200
  site.service.close()


def test_a_token_is_asked_for():
  site = sites.open_site(token='0123456789abcdef')
  get = site.client.get
  for headers in ({}, {'Authorization': 'Bearer 0123456789abcdeF'}):
    refused = get('/metrics', headers=headers)
    assert site.error(401, refused)['field'] == 'Authorization'
  bearer = {'Authorization': 'Bearer 0123456789abcdef', 'Host': 'any.example'}
  assert get('/metrics', headers=bearer).status_code == 200
  assert get('/v2/health/ready').status_code == 200
  site.service.close()


def test_metrics_tell_what_happened(site):
  site.client.post('/users/u/events', json=sites.events(sites.history()))
  asked = {'user_id': 'u', 'candidates': sites.CANDIDATES}
  for _ in range(2):
    site.client.post('/score', json=asked)
  text = site.client.get('/metrics').text
  for line in (
    'dare_requests_total{code="200",route="score"} 2.0',
    'dare_states_total{result="hit"} 1.0',
    'dare_states_total{result="encoded"} 1.0',
    'dare_unknown_values_total{field="item",side="candidates"} 2.0',
    'dare_candidates_total 6.0',
    'dare_events_total{result="accepted"} 6.0',
    'dare_bundle_info{model="double",version="v1"} 1.0',
    'dare_ready 1.0',
    'dare_cache_users 1.0',
  ):
    assert line in text, line


def test_the_log_names_requests_and_no_histories(site):
  site.client.post('/users/someone/events', json=sites.events(sites.history()))
  asked = {'user_id': 'someone', 'candidates': sites.CANDIDATES}
  answer = site.client.post(
    '/score', json=asked, headers={'X-Request-ID': 'mine-1'}
  )
  assert answer.headers['x-request-id'] == 'mine-1'
  assert site.log[-1]['request_id'] == 'mine-1'
  assert site.log[-1]['route'] == 'score'
  told = json.dumps(site.log)
  assert 'someone' not in told
  assert 'i50' not in told
  forged = site.client.get('/users', headers={'X-Request-ID': 'a b'})
  assert forged.headers['x-request-id'] != 'a b'
