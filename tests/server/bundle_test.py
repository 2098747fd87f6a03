"""Served scores are those of the run that its bundle was made of."""

from __future__ import annotations

import numpy as np
import pytest

from dare_jax import bundle
from dare_jax import trained
from dare_jax.server import swap
from tests import tiny
from tests.bundle import served
from tests.server import double
from tests.server import sites

pytestmark = pytest.mark.slow  # A run is trained and exported first.


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('serve')
  tiny.write_log(root / 'log.csv')
  served.train(root, root / 'run')
  served.export(root / 'run', root / 'bundle', shapes='1x8')
  return root


@pytest.fixture(scope='module')
def site(root):
  opened = sites.open_site(bundle.open(root / 'bundle'))
  with opened.client:
    yield opened
  opened.service.close()


def _rows(columns):
  names = list(columns)
  values = zip(*columns.values(), strict=True)
  return [dict(zip(names, row, strict=True)) for row in values]


def test_served_scores_are_those_of_the_run(root, site):
  """Of users and given histories, as events come one by one and in bulk."""
  run, rng = trained.load(root / 'run'), np.random.default_rng(0)
  past, some = served.raw(rng, 26), served.raw(rng, 7)
  rows, candidates = _rows(past), _rows(some)
  kept = 0
  for count in (3, 2, 20, 1):
    new = [{**row, 'time': kept + n} for n, row in enumerate(rows[kept:])]
    sent = sites.events(new[:count], kept)
    site.client.post('/users/u/events', json=sent).raise_for_status()
    kept += count
    expected = run.score({f: v[:kept] for f, v in past.items()}, some)
    for who in ({'user_id': 'u'}, {'history': rows[:kept]}):
      answer = site.client.post(
        '/score', json={**who, 'candidates': candidates}
      )
      np.testing.assert_allclose(
        sites.logits(answer), expected, rtol=1e-6, atol=1e-6
      )
  known = set(run.known['item'])
  unknown = [one['unknown'] == ['item'] for one in answer.json()['scores']]
  assert unknown == [row['item'] not in known for row in candidates]


def test_what_was_found_explains_the_scores(site):
  rng = np.random.default_rng(1)
  rows, candidates = _rows(served.raw(rng, 12)), _rows(served.raw(rng, 3))
  body = {'history': rows, 'candidates': candidates, 'explain': True}
  for one in site.client.post('/score', json=body).json()['scores']:
    weights = [found['weight'] for found in one['found']]
    assert len(weights) == 5
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    for found in one['found']:
      assert found['item'] == rows[-found['position']]['item']


def test_a_bundle_fits_in_place_of_its_like_alone(root):
  opened = bundle.open(root / 'bundle')
  assert swap.misfit(opened, opened) is None
  assert 'name differ' in swap.misfit(opened, double.Double())
  other = double.Double(name='dare', prefix='other-')
  assert 'ids differ' in swap.misfit(opened, other)
