"""The application of Ray Serve answers as the server does, on a local Ray."""

from __future__ import annotations

import importlib.util
import pathlib
import socket
import sys

import httpx2 as httpx
import numpy as np
import pytest

from dare_jax import bundle as bundle_lib
from dare_jax import errors
from tests import tiny
from tests.bundle import served

_ROOT = pathlib.Path(__file__).parents[2]
_FILE = _ROOT / 'launch' / 'serving' / 'ray_serve.py'


@pytest.fixture(scope='module')
def application():
  pytest.importorskip('ray.serve', reason='ray[serve] is not installed')
  from ray import cloudpickle

  spec = importlib.util.spec_from_file_location('ray_serve', _FILE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, 'ray_serve', module)
    # Replicas lack its folder among their paths, which `serve run` sees to.
    cloudpickle.register_pickle_by_value(module)
    yield module.app


def _free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def test_what_is_wrong_is_told(application):
  for args, told in (
    ({}, 'bundle=PATH'),
    ({'bundle': 'b', 'model': 'm'}, 'bundle=PATH'),
    ({'bundle': 'b', 'replicas': '2'}, 'state=redis'),
  ):
    with pytest.raises(errors.UsageError, match=told):
      application(args)


@pytest.mark.slow
def test_scores_are_those_of_the_bundle(application, tmp_path):
  import ray
  from ray import serve

  tiny.write_log(tmp_path / 'log.csv')
  served.train(tmp_path, tmp_path / 'run')
  served.export(tmp_path / 'run', tmp_path / 'bundle')
  opened = bundle_lib.open(tmp_path / 'bundle')
  raw = [served.raw(np.random.default_rng(0), n) for n in (6, 3)]
  (expected,) = opened.score(
    [served.ids(opened, raw[0])], [served.ids(opened, raw[1])]
  )
  history, candidates = (
    [
      {'item': item, 'category': category}
      for item, category in zip(one['item'], one['category'], strict=True)
    ]
    for one in raw
  )
  ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
  try:
    port = _free_port()
    serve.start(http_options={'host': '127.0.0.1', 'port': port})
    serve.run(application({'bundle': str(tmp_path / 'bundle')}))
    with httpx.Client(
      base_url=f'http://127.0.0.1:{port}', timeout=60
    ) as client:
      body = {'history': history, 'candidates': candidates}
      answer = client.post('/score', json=body)
      found = [
        one['logit'] for one in answer.raise_for_status().json()['scores']
      ]
      assert client.get('/v2/health/ready').json() == {'ready': True}
      broken = client.post('/score', json={**body, 'candidates': []})
      assert broken.status_code == 400
      assert broken.json()['error']['field'] == 'candidates'
  finally:
    serve.shutdown()
    ray.shutdown()
  np.testing.assert_allclose(found, expected.logit, atol=1e-6)
