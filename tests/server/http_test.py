"""Scores and events over HTTP, from a double of a bundle."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from tests.server import double as double_lib
from tests.server import sites


def test_a_history_in_the_request_is_scored(site):
  body = {
    'history': sites.history(),
    'candidates': sites.CANDIDATES,
    'explain': True,
  }
  answer = site.client.post('/score', json=body)
  np.testing.assert_array_equal(
    np.float32(sites.logits(answer)),
    sites.expected(site.bundle, sites.history()),
  )
  told = answer.json()
  assert (told['model'], told['version']) == ('double', 'v1')
  assert told['behaviors'] == 6
  assert told['unknown'] == {'item': 1, 'category': 0}
  first, _, last = told['scores']
  assert first['probability'] == pytest.approx(
    1 / (1 + np.exp(-first['logit']))
  )
  assert (first['unknown'], last['unknown']) == ([], ['item'])
  # Of category c0 are behaviors 0, 2 and 4 of 6: 6, 4 and 2 back.
  assert [one['position'] for one in first['found']] == [2, 4, 6]
  assert first['found'][0] == {
    'item': 'i4',
    'category': 'c0',
    'time': 104,
    'position': 2,
    'weight': pytest.approx(1 / 3),
  }


def test_only_the_last_behaviors_count(site):
  body = {'candidates': sites.CANDIDATES}
  long = site.client.post('/score', json={'history': sites.history(50), **body})
  short = site.client.post(
    '/score', json={'history': sites.history(50)[-20:], **body}
  )
  assert sites.logits(long) == sites.logits(short)
  assert long.json()['behaviors'] == 20


def test_events_of_a_user_are_scored_as_if_they_were_given(site):
  rows = sites.history(30)
  site.client.post('/users/u/events', json=sites.events(rows))
  asked = {'candidates': sites.CANDIDATES, 'explain': True}
  kept = site.client.post('/score', json={'user_id': 'u', **asked})
  given = site.client.post('/score', json={'history': rows, **asked})
  assert kept.json() == given.json()


def test_a_state_is_used_again_and_appended_to(site):
  asked = {'user_id': 7, 'candidates': sites.CANDIDATES}
  post = site.client.post
  post('/users/7/events', json=sites.events(sites.history(5)))
  first = sites.logits(post('/score', json=asked))
  assert sites.logits(post('/score', json=asked)) == first
  assert (site.bundle.encoded, site.bundle.appended) == (1, 0)
  later = [{'item': 'i9', 'category': 'c1', 'time': 900}]
  post('/users/7/events', json=sites.events(later, 5))
  changed = sites.logits(post('/score', json=asked))
  assert (site.bundle.encoded, site.bundle.appended) == (1, 1)
  np.testing.assert_array_equal(
    np.float32(changed), sites.expected(site.bundle, sites.history(5) + later)
  )
  late = [{'item': 'i8', 'category': 'c1', 'time': 102}]
  post('/users/7/events', json=sites.events(late, 6))
  after = sites.logits(post('/score', json=asked))
  assert site.bundle.encoded == 2
  order = sites.history(5)[:3] + late + sites.history(5)[3:] + later
  np.testing.assert_array_equal(
    np.float32(after), sites.expected(site.bundle, order)
  )


def test_events_count_once_and_can_be_read(site):
  post = site.client.post
  answer = post('/users/a%2Fb/events', json=sites.events(sites.history(3)))
  assert answer.json() == {'accepted': 3, 'duplicates': 0, 'expired': 0}
  answer = post('/users/a%2Fb/events', json=sites.events(sites.history(4)))
  assert answer.json() == {'accepted': 1, 'duplicates': 3, 'expired': 0}
  kept = site.client.get('/users/a%2Fb/events').json()['events']
  assert kept == sites.history(4)
  assert site.client.get('/users/a%2Fb/events?last=1').json() == {
    'events': kept[-1:]
  }
  assert site.client.get('/users').json() == {'users': ['a/b']}


def test_an_event_without_time_is_of_now(site):
  row = {'item': 'i1', 'category': 'c1'}
  site.client.post('/users/u/events', json=sites.events([row]))
  kept = site.client.get('/users/u/events').json()['events'][0]
  assert abs(kept['time'] - time.time()) < 60


def test_a_forgotten_user_is_unknown(site):
  site.client.post('/users/u/events', json=sites.events(sites.history()))
  asked = {'user_id': 'u', 'candidates': sites.CANDIDATES}
  assert site.client.post('/score', json=asked).status_code == 200
  assert site.client.delete('/users/u').json() == {'deleted': True}
  assert len(site.service.main.known.cache) == 0
  error = site.error(404, site.client.post('/score', json=asked))
  assert error['field'] == 'user_id'
  site.error(404, site.client.delete('/users/u'))
  site.error(404, site.client.get('/users/u/events'))


def test_a_set_is_text_or_a_list():
  site = sites.open_site(double_lib.Double(sets={'category': '|'}))
  with site.client:
    post = site.client.post
    listed = [{**row, 'category': [row['category']]} for row in sites.history()]
    texts, lists = (
      post('/score', json={'history': rows, 'candidates': sites.CANDIDATES})
      for rows in (sites.history(), listed)
    )
    assert sites.logits(texts) == sites.logits(lists)
    several = {'item': 'i1', 'category': ['b', 'a', 'b'], 'time': 1}
    post('/users/u/events', json=sites.events([several]))
    kept = site.client.get('/users/u/events').json()['events']
    assert kept == [{**several, 'category': 'a|b'}]
    wrong = [{'item': 'i1', 'category': ['a|b']}]
    answer = post('/score', json={'history': [], 'candidates': wrong})
    assert site.error(400, answer)['field'] == 'category'
  site.service.close()


_ROW = {'item': 'i1', 'category': 'c1'}
# Body -> the field that is named.
_WRONG = [
  ('{', ''),
  ('[]', ''),
  ('"\\ud800"', ''),
  (b'\xff\xfe', ''),
  ({'candidates': [_ROW]}, 'user_id'),
  ({'candidates': [_ROW], 'user_id': 'u', 'history': []}, 'user_id'),
  ({'candidates': [_ROW], 'user_id': None}, 'user_id'),
  ({'candidates': [_ROW], 'user_id': ''}, 'user_id'),
  ({'candidates': [], 'history': []}, 'candidates'),
  ({'candidates': [_ROW] * 51, 'history': []}, 'candidates'),
  ({'candidates': [{'item': 1}], 'history': []}, 'candidates[0].category'),
  ({'candidates': [{**_ROW, 'x': 1}], 'history': []}, 'candidates[0].x'),
  ({'candidates': [{**_ROW, 'item': []}], 'history': []}, 'candidates[0].item'),
  (
    {'candidates': [{**_ROW, 'item': True}], 'history': []},
    'candidates[0].item',
  ),
  (
    {'candidates': [{**_ROW, 'item': 0.5}], 'history': []},
    'candidates[].item',
  ),
  (
    {'candidates': [{**_ROW, 'item': 'x' * 300}], 'history': []},
    'candidates[0].item',
  ),
  (
    {'candidates': [{**_ROW, 'item': 2**70}], 'history': []},
    'candidates[0].item',
  ),
  (
    {'candidates': [_ROW], 'history': [{**_ROW, 'time': 'now'}]},
    'history[0].time',
  ),
  ({'candidates': [_ROW], 'history': [], 'context': {'a': 1}}, 'context.a'),
  ({'candidates': [_ROW], 'history': [], 'explian': True}, 'explian'),
]


@pytest.mark.parametrize(('body', 'field'), _WRONG)
def test_a_wrong_request_names_the_field(site, body, field):
  sent = json.dumps(body) if isinstance(body, dict) else body
  answer = site.client.post(
    '/score', content=sent, headers={'Content-Type': 'application/json'}
  )
  error = site.error(400, answer)
  assert error['field'] == field
  assert error['message']


@pytest.mark.parametrize(
  ('row', 'field'),
  [
    ({'item': 1, 'category': 2}, 'events[0].event_id'),
    ({'event_id': None, 'item': 1, 'category': 2}, 'events[0].event_id'),
    ({'event_id': 1, 'item': 1}, 'events[0].category'),
    ({'event_id': 1, **_ROW, 'time': 2**63}, 'events[0].time'),
  ],
)
def test_a_wrong_event_names_the_field(site, row, field):
  answer = site.client.post('/users/u/events', json={'events': [row]})
  assert site.error(400, answer)['field'] == field


def test_missing_values_and_empty_histories_are_scored(site):
  body = {'history': [], 'candidates': [{'item': None, 'category': 3}]}
  answer = site.client.post('/score', json=body).json()
  assert answer['scores'][0]['unknown'] == ['item', 'category']
  assert answer['behaviors'] == 0


def test_what_is_known_of_a_user_need_not_be_given():
  fields = ('weekday',)
  bundle = double_lib.Double(context_fields=fields, user_fields=fields)
  site = sites.open_site(bundle)
  site.client.post('/users/u5/events', json=sites.events(sites.history()))
  plain = sites.expected(bundle, sites.history())
  for more, added in (
    ({'user_id': 'u5'}, 7),
    ({'user_id': 'u5', 'context': {'weekday': 'w3'}}, 5),
    ({'history': sites.history()}, 1),
  ):
    answer = site.client.post(
      '/score', json={'candidates': sites.CANDIDATES, **more}
    )
    np.testing.assert_allclose(sites.logits(answer), plain + added, rtol=1e-6)
  site.service.close()


def test_context_is_asked_for_where_a_model_has_it():
  site = sites.open_site(double_lib.Double(context_fields=('weekday',)))
  body = {'history': sites.history(), 'candidates': sites.CANDIDATES}
  answer = site.client.post('/score', json=body)
  assert site.error(400, answer)['field'] == 'context'
  body['context'] = {'weekday': 'w5'}
  plain = sites.expected(site.bundle, sites.history())
  np.testing.assert_allclose(
    sites.logits(site.client.post('/score', json=body)), plain + 7, rtol=1e-6
  )
  site.service.close()
