"""One run and its bundle, for all tests of a worker."""

import pytest

from dare_jax import bundle
from dare_jax import trained
from tests import tiny
from tests.bundle import served


@pytest.fixture(scope='session')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('bundle')
  tiny.write_log(root / 'log.csv')
  served.train(root, root / 'run')
  served.export(root / 'run', root / 'bundle')
  return root


@pytest.fixture(scope='session')
def run(root):
  return trained.load(root / 'run')


@pytest.fixture(scope='session')
def opened(root):
  return bundle.open(root / 'bundle')
