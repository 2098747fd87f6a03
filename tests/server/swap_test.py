"""Swaps of bundles, step by step, in this process."""

from __future__ import annotations

import os
import shutil

import pytest

from dare_jax.server import swap
from tests.server import double
from tests.server import sites


@pytest.fixture
def site(tmp_path):
  opened = sites.open_site(double.open_double(str(_write(tmp_path, 'v1'))))
  for user in 'abc':
    sent = sites.events(sites.history())
    opened.client.post(f'/users/{user}/events', json=sent)
    _score(opened, user)
  yield opened
  opened.service.close()


def _write(folder, version, **fields):
  made = double.write(folder / version, version=version, **fields)
  link = folder / 'bundle'
  link.unlink(missing_ok=True)
  os.symlink(made, link)
  return link


def _score(site, user='a'):
  body = {'user_id': user, 'candidates': sites.CANDIDATES}
  return site.client.post('/score', json=body).raise_for_status().json()


def _swapper(site, tmp_path, open_bundle=double.open_double):
  path = str(tmp_path / 'bundle')
  return swap.Swapper(path, 'double', site.service, open_bundle, 1.0)


def test_states_are_made_ahead_and_the_cache_is_of_one_version(site, tmp_path):
  swapper = _swapper(site, tmp_path)
  swapper.look()
  assert _score(site)['version'] == 'v1'
  _write(tmp_path, 'v2')
  swapper.look()
  assert len(site.service.main.known.cache) == 3
  assert _score(site)['version'] == 'v2'
  assert site.service.main.known.bundle.encoded == 3
  copy = double.write(tmp_path / 'copy', version='v2')
  (tmp_path / 'bundle').unlink()
  os.symlink(copy, tmp_path / 'bundle')
  swapper.look()
  told = site.client.get('/metrics').text
  assert 'dare_swaps_total{result="taken"} 1.0' in told


def test_who_is_deleted_meanwhile_has_no_state(site, tmp_path):
  swapper = _swapper(site, tmp_path)
  take = site.service.take

  def delete_then_take(served):
    site.client.delete('/users/b')
    take(served)

  site.service.take = delete_then_take
  _write(tmp_path, 'v2')
  swapper.look()
  assert len(site.service.main.known.cache) == 2


def test_a_refused_bundle_is_looked_at_once(site, tmp_path):
  opened = []

  def open_bundle(path):
    opened.append(path)
    return double.open_double(path)

  swapper = _swapper(site, tmp_path, open_bundle)
  _write(tmp_path, 'v2', prefix='other-')
  for _ in range(3):
    swapper.look()
  assert len(opened) == 1
  model = site.client.get('/v2/models/double').json()
  assert 'its ids differ: 100 of 100' in model['refused']
  assert _score(site)['version'] == 'v1'
  _write(tmp_path, 'v3')
  swapper.look()
  assert _score(site)['version'] == 'v3'
  assert site.client.get('/v2/models/double').json()['refused'] is None


def test_a_bundle_that_is_gone_or_broken_changes_nothing(site, tmp_path):
  swapper = _swapper(site, tmp_path)
  shutil.rmtree(tmp_path / 'v1')
  swapper.look()
  assert _score(site)['version'] == 'v1'
  broken = _write(tmp_path, 'v2')
  (broken / 'manifest.json').write_text('{"version": ')
  swapper.look()
  assert _score(site)['version'] == 'v1'
  refused = site.client.get('/v2/models/double').json()['refused']
  assert 'JSONDecodeError' in refused
